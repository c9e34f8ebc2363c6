"""Whether the driver fits the CUDA of the installed wheels, read from the files of a made-up machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from optml.cuda import driver_problem, driver_version, installed_cuda

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
def test_the_driver_is_what_the_kernel_module_tells(tmp_path: Path, text: str, version: str) -> None:
    assert driver_version(machine(tmp_path, version, text=text)) == version


def test_no_driver() -> None:
    assert driver_version("/nonexistent") is None


@pytest.mark.parametrize(
    ("wheel", "cuda"),
    [
        ("torch-2.4.1+cu121", 12),
        ("torch-2.1.0+cu118", 11),
        ("torch-2.13.0+cu130", 13),
        ("nvidia_cuda_runtime_cu12-12.4.127", 12),
        ("nvidia_cuda_runtime_cu11-11.8.89", 11),
        ("nvidia_cuda_runtime-13.0.48", 13),
        ("jax_cuda12_plugin-0.4.31", 12),
        ("cupy_cuda11x-13.3.0", 11),
        ("torch-2.13.0+cpu", 0),
        ("torch-2.13.0", 0),
        ("numpy-2.2.0", 0),
    ],
)
def test_the_cuda_of_a_wheel(tmp_path: Path, wheel: str, cuda: int) -> None:
    found = installed_cuda(PYTHON, machine(tmp_path, "", wheel, "pip-25.0"))
    assert found == (cuda, wheel if cuda else "")


def test_onnxruntime_names_cuda_in_its_requirements(tmp_path: Path) -> None:
    root = machine(tmp_path, "", "onnxruntime_gpu-1.23.0")
    site = tmp_path / "opt/venv/lib/python3.13/site-packages/onnxruntime_gpu-1.23.0.dist-info"
    needs = "Requires-Dist: numpy>=1.21.6\nRequires-Dist: nvidia-cuda-runtime-cu12~=12.0; extra == 'cuda'\n"
    (site / "METADATA").write_text(needs)
    assert installed_cuda(PYTHON, root) == (12, "onnxruntime_gpu-1.23.0")


def test_a_driver_that_is_too_old_on_an_endpoint(tmp_path: Path) -> None:
    """The default AMI of SageMaker's older GPU instances has driver 470."""
    wheels = ("torch-2.5.1", "nvidia_cuda_runtime_cu12-12.4.127")
    problem = driver_problem(PYTHON, True, machine(tmp_path, "470.256.02", *wheels))
    assert problem is not None
    assert problem.startswith(
        "the NVIDIA driver 470.256.02 of this host is too old for CUDA 12, which nvidia_cuda"
    )
    assert (
        "needs driver 525 or later: set InferenceAmiVersion al2-ami-sagemaker-inference-gpu-2-1 on" in problem
    )
    assert "install wheels for CUDA 11" in problem
    assert "\n" not in problem


def test_a_driver_that_is_too_old_for_training(tmp_path: Path) -> None:
    problem = driver_problem(PYTHON, False, machine(tmp_path, "550.54.15", "torch-2.13.0+cu130"))
    assert problem is not None
    assert (
        "needs driver 580 or later: install wheels for CUDA 12; or use a host with a newer driver" in problem
    )
    assert "Ami" not in problem


@pytest.mark.parametrize(
    ("driver", "wheels"),
    [
        ("525.60.13", ("torch-2.4.1+cu121",)),
        ("580.65.06", ("torch-2.4.1+cu121", "nvidia_cuda_runtime-13.0.48")),  # newer than need be
        ("470.256.02", ("torch-2.13.0+cpu",)),
        ("470.256.02", ()),
        ("", ("torch-2.4.1+cu121",)),
    ],
)
def test_nothing_is_wrong(tmp_path: Path, driver: str, wheels: tuple[str, ...]) -> None:
    assert driver_problem(PYTHON, True, machine(tmp_path, driver, *wheels)) is None


def test_the_forward_compatibility_package_stands_in_for_the_driver(tmp_path: Path) -> None:
    root = machine(tmp_path, "470.256.02", "torch-2.4.1+cu121")
    compat = tmp_path / "usr/local/cuda-12.4/compat"
    compat.mkdir(parents=True)
    (compat / "libcuda.so.1").touch()
    assert driver_problem(PYTHON, True, root) is None
