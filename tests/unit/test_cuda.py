"""Whether the driver supports the installed wheels' CUDA, read from the files of a made-up machine."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from pathlib import Path

import pytest

from optml.cuda import AMIS, driver_version, installed_cuda, problems
from tests.support.wheels import of_the_images

PYTHON = "/opt/venv/bin/python3"
PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sun May 12 19:42:08 UTC 2024\nGCC version: 12\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (x)\nGCC version: 13\n"


def machine(root: Path, driver: str, *wheels: str, text: str = PROPRIETARY) -> str:
    """A root directory with this driver loaded and these wheels installed."""
    if driver:
        (root / "proc/driver/nvidia").mkdir(parents=True)
        (root / "proc/driver/nvidia/version").write_text(text.format(driver))
    site = root / "opt/venv/lib/python3.13/site-packages"
    for wheel in wheels:
        (site / f"{wheel}.dist-info").mkdir(parents=True)
        (site / f"{wheel}.dist-info/METADATA").write_text("Metadata-Version: 2.1\n")
    return str(root)


@pytest.mark.parametrize("text", [PROPRIETARY, OPEN])
@pytest.mark.parametrize("version", ["470.256.02", "535.54.03", "580.65.06", "570.86"])
def test_the_driver_is_that_of_the_kernel_module(tmp_path: Path, text: str, version: str) -> None:
    assert driver_version(machine(tmp_path, version, text=text)) == version


def test_no_driver() -> None:
    assert driver_version("/nonexistent") == ""


@pytest.mark.parametrize(
    ("wheel", "cuda"),
    [
        ("torch-2.4.1+cu121", (12, 1)),
        ("torch-2.1.0+cu118", (11, 8)),
        ("torch-2.13.0+cu130", (13, 0)),
        ("nvidia_cuda_runtime_cu12-12.4.127", (12, 4)),
        ("nvidia_cuda_runtime_cu11-11.8.89", (11, 8)),
        ("nvidia_cuda_runtime-13.0.48", (13, 0)),
        ("jax_cuda12_plugin-0.4.31", (12, -1)),
        ("jax_cuda13_pjrt-0.9.0", (13, -1)),
        ("cupy_cuda11x-13.3.0", (11, -1)),
        ("torch-2.13.0+cpu", (0, -1)),
        ("torch-2.13.0", (0, -1)),
        ("tensorflow-2.20.0", (0, -1)),  # with [and-cuda] it brings the runtime's wheel
        ("numpy-2.2.0", (0, -1)),
    ],
)
def test_the_cuda_of_a_wheel(tmp_path: Path, wheel: str, cuda: tuple[int, int]) -> None:
    found = installed_cuda(PYTHON, machine(tmp_path, "", wheel, "pip-25.0"))
    assert found == (cuda, wheel if cuda[0] else "")


def test_the_most_precise_wheel_counts(tmp_path: Path) -> None:
    """JAX's plugin names only the major version; NVIDIA's runtime beside it also the minor one."""
    root = machine(tmp_path, "", "jax_cuda12_plugin-0.7.2", "nvidia_cuda_runtime_cu12-12.9.79")
    assert installed_cuda(PYTHON, root) == ((12, 9), "nvidia_cuda_runtime_cu12-12.9.79")


@pytest.mark.parametrize(
    ("need", "cuda"),
    [
        ("nvidia-cuda-runtime-cu12~=12.0", 12),
        ("nvidia-cuda-runtime~=13.0", 13),
        ("nvidia-cuda-nvrtc~=13.0", 0),
    ],
)
def test_onnxruntime_names_cuda_in_its_requirements(tmp_path: Path, need: str, cuda: int) -> None:
    root = machine(tmp_path, "", "onnxruntime_gpu-1.23.0")
    site = tmp_path / "opt/venv/lib/python3.13/site-packages/onnxruntime_gpu-1.23.0.dist-info"
    (site / "METADATA").write_text(f"Requires-Dist: numpy>=1.21.6\nRequires-Dist: {need}; extra == 'cuda'\n")
    assert installed_cuda(PYTHON, root) == ((cuda, -1), "onnxruntime_gpu-1.23.0" if cuda else "")


def problem(root: str, serving: bool = True, *gpus: dict[str, str]) -> str:
    """The only problem, if any."""
    lines = problems(PYTHON, serving, list(gpus), root)
    assert len(lines) <= 1 and not any("\n" in line for line in lines)
    return "".join(lines)


def gpu(capability: str, driver: str = "", name: str = "NVIDIA B200") -> dict[str, str]:
    return {"name": name, "capability": capability, "driver": driver}


def test_a_driver_that_is_too_old_on_an_endpoint(tmp_path: Path) -> None:
    """The default AMI of SageMaker's older GPU instances has driver 470."""
    wheels = ("torch-2.5.1", "nvidia_cuda_runtime_cu12-12.4.127")
    line = problem(machine(tmp_path, "470.256.02", *wheels))
    assert line.startswith(
        "the NVIDIA driver 470.256.02 of this host is too old for CUDA 12, which nvidia_cuda"
    )
    assert "needs driver 525 or later: set InferenceAmiVersion al2-ami-sagemaker-inference-gpu-2-1 on" in line
    assert "set TransformAmiVersion al2-ami-sagemaker-batch-gpu-535 on a batch transform job" in line
    assert "install wheels for CUDA 11" in line


def test_no_batch_transform_has_a_driver_for_cuda_13(tmp_path: Path) -> None:
    line = problem(machine(tmp_path, "535.54.03", "torch-2.13.0+cu130"))
    assert "InferenceAmiVersion al2023-ami-sagemaker-inference-gpu-4-1" in line
    assert "TransformAmiVersion" not in line


def test_a_driver_that_is_too_old_for_training(tmp_path: Path) -> None:
    line = problem(machine(tmp_path, "550.54.15", "torch-2.13.0+cu130"), False)
    assert "needs driver 580 or later: install wheels for CUDA 12; or use a host with a newer driver" in line
    assert line.endswith("; or on a data-center GPU install NVIDIA's package cuda-compat")
    assert "Ami" not in line


def test_the_driver_of_wsl2_is_that_of_nvml(tmp_path: Path) -> None:
    line = problem(machine(tmp_path, "", "torch-2.13.0+cu130"), False, gpu("8.6", "560.94"))
    assert line.startswith("the NVIDIA driver 560.94 of this host")


@pytest.mark.parametrize(
    ("driver", "wheels"),
    [
        ("525.60.13", ("torch-2.4.1+cu121",)),
        ("525.60.13", ("nvidia_cuda_runtime_cu12-12.9.79",)),  # minor-version compatibility
        ("580.65.06", ("torch-2.4.1+cu121", "nvidia_cuda_runtime-13.0.48")),  # newer than needed
        ("470.256.02", ("torch-2.13.0+cpu",)),
        ("470.256.02", ()),
        ("", ("torch-2.4.1+cu121",)),
    ],
)
def test_nothing_is_wrong(tmp_path: Path, driver: str, wheels: tuple[str, ...]) -> None:
    assert problem(machine(tmp_path, driver, *wheels), True, gpu("8.0")) == ""


@pytest.mark.parametrize(
    ("wheel", "capability", "told"),
    [
        (
            "torch-2.13.0+cu130",
            "7.0",
            "too old for CUDA 13, which torch-2.13.0+cu130 brings and which needs 7.5",
        ),
        ("torch-2.13.0+cu130", "7.5", ""),
        ("torch-2.4.1+cu121", "7.0", ""),
        ("torch-2.4.1+cu121", "8.9", ""),
        (
            "torch-2.4.1+cu121",
            "10.0",
            "newer than CUDA 12.1, which torch-2.4.1+cu121 brings: install wheels for CUDA 12.8",
        ),
        ("torch-2.8.0+cu128", "10.0", ""),
        ("torch-2.8.0+cu128", "12.0", ""),
        (
            "torch-1.12.0+cu113",
            "9.0",
            "newer than CUDA 11.3, which torch-1.12.0+cu113 brings: install wheels for CUDA 11.8",
        ),
        ("cupy_cuda12x-13.3.0", "12.0", ""),  # its minor version is unknown
        ("cupy_cuda11x-13.3.0", "12.0", "newer than CUDA 11, which"),
        ("torch-2.13.0+cu130", "", ""),
        ("torch-2.13.0+cu130", "-1.0", ""),
        ("torch-2.13.0+cu130", "99.0", ""),
    ],
)
def test_a_gpu_that_the_wheels_were_not_built_for(
    tmp_path: Path, wheel: str, capability: str, told: str
) -> None:
    line = problem(machine(tmp_path, "590.44.01", wheel), False, gpu(capability), gpu(capability))
    assert told in line
    assert bool(told) == bool(line)
    assert not line or line.startswith(f"the GPU NVIDIA B200 (compute capability {capability}) is ")


@pytest.mark.parametrize("found", ["by path", "by cache", "not"])
@pytest.mark.parametrize(("made_from", "new_enough"), [("550.54.15", True), ("520.61.05", False)])
def test_the_forward_compatibility_package_replaces_the_driver_if_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_from: str, new_enough: bool, found: str
) -> None:
    root = machine(tmp_path, "470.256.02", "torch-2.4.1+cu121")
    compat = tmp_path / "usr/local/cuda-12.4/compat"
    compat.mkdir(parents=True)
    (compat / f"libcuda.so.{made_from}").touch()
    (compat / "libcuda.so.1").symlink_to(f"libcuda.so.{made_from}")
    (tmp_path / "usr/local/cuda").symlink_to("cuda-12.4")
    if found == "by path":
        monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/lib:/usr/local/cuda/compat")
    elif found == "by cache":
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc/ld.so.cache").write_bytes(b"\0/usr/local/cuda-12.4/compat/libcuda.so.1\0")
    line = problem(root)
    assert bool(line) != (new_enough and found != "not")
    assert ("into LD_LIBRARY_PATH" in line) == (new_enough and found == "not")


def test_the_amis_are_those_of_the_platform() -> None:
    """botocore has SageMaker's own description: each name with its driver."""
    archive = zipfile.ZipFile(of_the_images("botocore"))
    (name,) = (name for name in archive.namelist() if re.search(r"/data/sagemaker/.*/service-2", name))
    shapes = json.loads(gzip.decompress(archive.read(name)))["shapes"]
    described = {
        "InferenceAmiVersion": shapes["ProductionVariant"]["members"]["InferenceAmiVersion"],
        "TransformAmiVersion": shapes["TransformResources"]["members"]["TransformAmiVersion"],
    }
    for setting, amis in AMIS.items():
        text = described[setting.split()[0]]["documentation"]
        drivers = dict(re.findall(r"<dt>(\S+-gpu-\S+)</dt>.*?NVIDIA driver version: (\d+)", text))
        assert amis.items() <= {name: int(driver) for name, driver in drivers.items()}.items()
        assert list(amis.values()) == sorted(amis.values())
