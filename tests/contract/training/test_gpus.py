"""A job on GPUs with a fake driver: what is counted and reported, how it stops, and why it failed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support import nvml
from tests.support.training import Training

pytestmark = [pytest.mark.image("gpu-train"), pytest.mark.one_variant]

TELL = """
import os, optml
job = optml.job()
print(os.environ["SM_NUM_GPUS"], job.gpus, [gpu["id"] for gpu in job.gpu_facts])
"""
TORCH_LIKE = """
class OutOfMemoryError(RuntimeError): pass
OutOfMemoryError.__module__ = "torch"
raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
"""


def test_the_job_sees_what_it_can_use(training: Training, library: Path) -> None:
    training.code("train.py", TELL)
    options = nvml.options(library, 3, CUDA_VISIBLE_DEVICES="GPU-00000003,0,7")
    done = training.train(*options)
    assert done.stdout == "2 2 ['GPU-00000003', '0']\n", done.output
    assert "2 x Fake GPU, 16384 MiB; driver 535.54.03 for CUDA up to 12.2" in done.stderr


@pytest.mark.long
def test_of_slices_a_program_has_one(training: Training, library: Path) -> None:
    training.code("train.py", TELL)
    done = training.train(*nvml.options(library, 2, SLICES=3))
    assert done.stdout == "1 1 ['MIG-00001001-ffff']\n", done.output
    assert "1 x Fake GPU, 16384 MiB, MIG-00001001-ffff; driver" in done.stderr


def test_a_driver_that_does_not_fit_is_told_before_the_program(training: Training, library: Path) -> None:
    training.code("train.py", "import os; print('ran')")
    wheel = training.root / "wheel"
    wheel.mkdir()
    mounted = f"--volume={wheel}:/opt/venv/lib/python3.13/site-packages/torch-2.13.0+cu130.dist-info:ro"
    done = training.train(*nvml.options(library), mounted, mounted.replace("3.13/", "3.11/"))
    assert done.stdout == "ran\n"
    assert (
        done.stderr.count("too old for CUDA 13, which torch-2.13.0+cu130 brings and which needs driver 580")
        == 1
    )


SHORT = ("nvmlInit", "nvmlDeviceGetMemoryInfo")


@pytest.mark.parametrize(
    "call", [pytest.param(call, marks=[pytest.mark.long] * (call not in SHORT)) for call in nvml.FACTS]
)
def test_a_driver_that_hangs_is_no_failure_and_swallows_no_stop(
    training: Training, library: Path, call: str
) -> None:
    training.code("train.py", "import os; print(os.environ['SM_NUM_GPUS'], flush=True)")
    slices = {"SLICES": 2} if call in nvml.OF_SLICES else {}
    options = nvml.options(library, 2, TROUBLE=call, KIND="hangs", **slices)
    done = training.train(*options)
    assert done.stdout == "2\n", done.output
    assert done.stderr.count("NVML does not tell the GPUs (no answer within 1.8 s): /dev has 2") == 1
    stopped = training.train(*nvml.options(library, 2, TROUBLE=call, KIND="stops", **slices))
    assert (stopped.code, stopped.stdout) == (143, ""), stopped.output
    assert "NVML does not tell" not in stopped.stderr  # nobody waits for it to time out


@pytest.mark.parametrize("wsl2", [False, pytest.param(True, marks=pytest.mark.long)])
def test_out_of_memory_tells_who_holds_it(training: Training, library: Path, wsl2: bool) -> None:
    """The program's own interpreter asks NVML, while it still holds the memory."""
    training.code("train.py", f"import optml; assert optml.job().gpus == 1\n{TORCH_LIKE}")
    options = nvml.options(library, 1, USED=16128)
    if wsl2:  # WSL 2 has one device for all GPUs
        options = [text.replace("nvidiactl", "dxg") for text in options if "/dev/nvidia0" not in text]
    done = training.train(*options)
    assert done.code == 1
    first = training.failure.splitlines()[0]
    assert first == (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.; "
        "GPUs: GPU 0 (Fake GPU): 15.8 of 16.0 GiB in use, 15.8 GiB by process 4242"
    )
    assert training.failure.count("15.8 GiB by process") == 1


def test_a_rank_tells_where_it_was(training: Training, library: Path) -> None:
    """torchrun passes the rank in this variable."""
    training.code("train.py", f"import os; os.environ['RANK'] = '3'\n{TORCH_LIKE}")
    done = training.train(*nvml.options(library, 1, USED=16128))
    assert "; GPUs of rank 3 on localhost: GPU 0 (Fake GPU)" in training.failure, done.output


def test_a_crash_in_cuda_tells_the_lost_gpu(training: Training, library: Path) -> None:
    training.code("train.py", "import os; os.abort()")
    training.train(*nvml.options(library, 2, LOST=2))
    assert "was killed by signal 6 (SIGABRT)" in training.failure
    assert "GPU 1: GPU is lost, it has fallen off the bus" in training.failure


def test_an_xid_is_told_with_its_meaning(training: Training, library: Path) -> None:
    training.code("train.py", "raise RuntimeError('CUDA error: unspecified launch failure')")
    told = "4,2,9000000000000000,-;NVRM: Xid (PCI:0000:10:1c): 13, pid=7, name=python3, Graphics Exception\n"
    (training.root / "kmsg").write_text(told)
    training.train(*nvml.options(library), f"--volume={training.root}/kmsg:/dev/kmsg:ro")
    assert (
        "Xid 13 of the GPU at PCI:0000:10:1c: the program did in a kernel what the GPU cannot"
        in training.failure
    )


@pytest.mark.long
def test_a_failure_that_is_none_of_cuda_asks_nobody(training: Training, library: Path) -> None:
    training.code("train.py", "raise ValueError('the data set is empty')")
    training.train(*nvml.options(library, USED=16128))
    assert "GPU" not in training.failure


@pytest.mark.long
def test_the_state_is_not_waited_for_where_nvml_hangs(training: Training, library: Path) -> None:
    training.code("train.py", TORCH_LIKE)
    start = time.monotonic()
    done = training.train(*nvml.options(library, TROUBLE="nvmlInit", KIND="hangs"))
    assert done.code == 1
    assert training.failure.startswith("torch.OutOfMemoryError: CUDA out of memory.")
    assert time.monotonic() - start < 30


@pytest.mark.long
def test_facts_are_json(training: Training, library: Path) -> None:
    training.code("train.py", "import os; os.execvp('python3', ['python3', '-m', 'optml', 'env'])")
    facts = json.loads(training.train(*nvml.options(library, 1)).stdout)["gpu_facts"]
    assert facts[0]["uuid"] == "GPU-00000001-aaaa" and facts[0]["memory"] == 16 << 30
