"""Workers on GPUs, with a fake driver and errors named as the frameworks name theirs."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import nvml
from tests.support.docker import docker
from tests.support.matrix import ROOT

from .serving import Models, Server, eventually, write_model

pytestmark = [pytest.mark.image("gpu-serve"), pytest.mark.one_variant]

TELLER = """
import os, time

AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")

def model_fn(model_dir, context):
    return context.gpu_id

def predict_fn(data, model, context):
    time.sleep(0.1)
    return [os.getpid(), AT_IMPORT, model, context.gpu_id]
"""
FAULTY = """
import os

class OutOfMemoryError(RuntimeError): pass

def model_fn(model_dir):
    return None

def predict_fn(data, model):
    if data == "oom":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if data == "fatal":
        try:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        except RuntimeError as error:
            raise ValueError("no prediction") from error
    return [os.getpid()]
"""
SITES = [
    f"/opt/venv/lib/python{version}/site-packages/torch-2.13.0+cu130.dist-info"
    for version in ("3.11", "3.13")
]


@pytest.mark.parametrize(
    ("workers", "variables", "shown"),
    [
        pytest.param(None, {}, {"GPU-00000001-aaaa": 1, "GPU-00000002-aaaa": 1}, marks=pytest.mark.long),
        (None, {"SLICES": 2}, {"MIG-00001001-ffff": 1, "MIG-00001002-ffff": 1, "GPU-00000002-aaaa": 1}),
        pytest.param(None, {"CUDA_VISIBLE_DEVICES": "1"}, {"1": 1}, marks=pytest.mark.long),
        (4, {}, {"GPU-00000001-aaaa": 2, "GPU-00000002-aaaa": 2}),
        (1, {}, {"GPU-00000001-aaaa,GPU-00000002-aaaa": 1}),
    ],
)
def test_each_worker_has_gpus_of_its_own(
    image: str,
    ml: Path,
    library: Path,
    workers: int | None,
    variables: dict[str, object],
    shown: dict[str, int],
) -> None:
    """The variable is set before the user's module is imported; the context counts from 0, as CUDA does."""
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": workers} if workers else {}
    with Server(image, ml, TELLER, *nvml.options(library, 2, **variables), **settings) as server:
        told: set[tuple[int, str, int, int]] = set()
        with ThreadPoolExecutor(8) as pool:

            def ask() -> bool:
                told.update(tuple(answer.json()) for answer in pool.map(lambda _: server.invoke(), range(8)))
                return len(told) == sum(shown.values())

            eventually(ask)
        assert Counter(gpu for _, gpu, _, _ in told) == shown
        assert {(loaded, called) for *_, loaded, called in told} == {(0, 0)}


@pytest.mark.long
def test_models_are_spread_over_the_gpus(image: str, ml: Path, library: Path) -> None:
    write_model(ml, "m", TELLER)
    with Models(image, ml, *nvml.options(library)) as server:
        for name in "ab":
            assert server.load(name, "m").status_code == 200
        assert [server.invoke(name).json()[1:] for name in "ab"] == [
            ["GPU-00000001-aaaa", 0, 0],
            ["GPU-00000002-aaaa", 0, 0],
        ]


@pytest.mark.long
def test_a_model_too_large_for_the_gpu_is_507(image: str, ml: Path, library: Path) -> None:
    write_model(ml, "m", FAULTY.replace("return None", "raise OutOfMemoryError('CUDA out of memory')"))
    with Models(image, ml, *nvml.options(library)) as server:
        assert server.load("a", "m").status_code == 507


def test_as_many_workers_as_fit_into_the_memory_of_the_gpus(image: str, ml: Path, library: Path) -> None:
    """The first one takes 6 GiB of 16: two fit into each GPU."""
    source = TELLER.replace("return context", "os.truncate('/filled/memory', 6 << 30); return context")
    (ml / "filled").mkdir()
    (ml / "filled").chmod(0o777)
    (ml / "filled/memory").touch()
    (ml / "filled/memory").chmod(0o666)
    options = nvml.options(library, FILLED="/filled/memory")
    with Server(
        image, ml, source, *options, f"--volume={ml}/filled:/filled", SAGEMAKER_MODEL_SERVER_WORKERS=8
    ) as server:
        server.wait_for_log(
            "ready: workers 4 (8 for SAGEMAKER_MODEL_SERVER_WORKERS, but only 4 that take 6144 MiB"
        )
        eventually(lambda: len(server.workers()) == 4)
        metrics = server.get("/metrics").text
        assert f'optml_gpu_memory_used_bytes{{gpu="GPU-00000001-aaaa"}} {6 << 30}' in metrics
        assert f'optml_gpu_memory_total_bytes{{gpu="GPU-00000002-aaaa"}} {16 << 30}' in metrics


@pytest.mark.long
def test_metrics_are_answered_where_nvml_hangs(image: str, ml: Path, library: Path) -> None:
    with Server(image, ml, FAULTY, *nvml.options(library, TROUBLE="nvmlInit", KIND="hangs")) as server:
        metrics = server.get("/metrics", timeout=30).text
        assert "optml_workers_ready" in metrics and "gpu" not in metrics
        assert server.ping() == 200


def test_a_stop_is_obeyed_while_nvml_hangs(image: str, ml: Path, library: Path) -> None:
    options = nvml.options(library, TROUBLE="nvmlInit", KIND="stops")
    with Server(image, ml, FAULTY, *options, ready=False) as server:
        assert server.wait() == 0
        assert server.log().stderr == ""  # nobody waited for NVML to time out


def test_out_of_gpu_memory_is_507_and_the_worker_goes_on(image: str, ml: Path, library: Path) -> None:
    with Server(image, ml, FAULTY, *nvml.options(library, 1)) as server:
        (before,) = server.invoke(b"[1]").json()
        refused = server.invoke(b'"oom"')
        assert (refused.status_code, refused.json()["message"]) == (
            507,
            "Not enough memory of the GPU for this request.",
        )
        assert server.invoke(b"[1]").json() == [before]


def test_a_worker_whose_cuda_is_broken_is_replaced(image: str, ml: Path, library: Path) -> None:
    """It would answer 500 to every call, and 200 to /ping."""
    with Server(image, ml, FAULTY, *nvml.options(library, 1)) as server:
        (before,) = server.invoke(b"[1]").json()
        assert server.invoke(b'"fatal"').status_code == 500
        eventually(
            lambda: server.invoke(b"[1]").status_code == 200 and server.invoke(b"[1]").json() != [before]
        )
        server.wait_for_log(f"CUDA has failed for good in worker {before}")
        eventually(lambda: server.workers() != [] and before not in server.workers())


def test_preload_is_refused_where_loading_started_cuda(image: str, ml: Path, library: Path) -> None:
    source = "import os\ndef model_fn(model_dir): return {}\ndef predict_fn(data, model): return data\n"
    options = nvml.options(library, 1)
    with Server(
        image,
        ml,
        source.format("os.open('/dev/nvidia0', os.O_RDWR)"),
        *options,
        ready=False,
        SAGEMAKER_MODEL_SERVER_PRELOAD="true",
    ) as server:
        assert server.wait() == 1
        assert (
            "which does not survive the fork of a worker: unset it, or move the model" in server.log().stderr
        )
    with Server(image, ml, source.format("None"), *options, SAGEMAKER_MODEL_SERVER_PRELOAD="true") as server:
        assert server.invoke(b"[1]").json() == [1]


def test_a_driver_that_does_not_fit_is_told_with_the_ami(image: str, ml: Path, library: Path) -> None:
    (ml / "wheel").mkdir()
    mounts = [f"--volume={ml}/wheel:{site}:ro" for site in SITES]
    with Server(image, ml, FAULTY, *nvml.options(library, 1), *mounts) as server:
        log = server.log().stderr
        assert len(re.findall("set InferenceAmiVersion al2023-ami-sagemaker-inference-gpu-4-1 on", log)) == 1


@pytest.fixture
def with_compatibility_libraries(image: str, tmp_path: Path) -> Iterator[str]:
    """The image of examples/gpu/compat.Dockerfile, with an empty library in place of NVIDIA's image."""
    name = f"optml-test-compat:{uuid.uuid4().hex}"
    (tmp_path / "usr/local/cuda-13.0/compat").mkdir(parents=True)
    (tmp_path / "usr/local/cuda-13.0/compat/libcuda.so.580.65.06").touch()
    subprocess.run(["sh", "-c", f"tar -C {tmp_path} -c usr | docker import - {name}-cuda"], check=True)
    arguments = ("--build-arg", f"CUDA={name}-cuda", "--build-arg", f"IMAGE={image.removeprefix('optml/')}")
    folder = ROOT / "examples/gpu"
    docker("build", "--force-rm", *arguments, "--tag", name, "--file", folder / "compat.Dockerfile", folder)
    yield name
    docker("rmi", "--force", name, f"{name}-cuda")


@pytest.mark.long
def test_the_compatibility_libraries_stand_in_for_a_newer_driver(
    with_compatibility_libraries: str, ml: Path, library: Path
) -> None:
    (ml / "wheel").mkdir()
    mounts = [f"--volume={ml}/wheel:{site}:ro" for site in SITES]
    # Docker mounts nothing below /proc, so the script reads the driver's version from elsewhere.
    script = (ROOT / "examples/gpu/compat-entrypoint").read_text()
    (ml / "entrypoint").write_text(script.replace("/proc/driver/nvidia/version", "/srv/driver"))
    (ml / "entrypoint").chmod(0o755)
    (ml / "driver").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6\n")
    mounts += [f"--volume={ml}/driver:/srv/driver:ro"]
    mounts += [f"--volume={ml}/entrypoint:/usr/local/bin/compat-entrypoint:ro"]
    with Server(with_compatibility_libraries, ml, FAULTY, *nvml.options(library, 1), *mounts) as server:
        assert server.invoke(b"[1]").status_code == 200
        assert "too old" not in server.log().stderr
