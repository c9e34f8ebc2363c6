"""Whether the host's driver and GPUs support the CUDA version of the user's wheels.

A driver that is too old fails only at the first kernel, often as an endpoint that never becomes healthy.
Both versions can be read before anything is imported: the driver's from /proc or NVML, CUDA's from the
wheels' metadata.
"""

from __future__ import annotations

import glob
import os
import re

from .hints import Any
from .machine import read

# CUDA major version → the oldest driver for all of its minor versions. Source:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}

# CUDA major version → the oldest compute capability that it supports, and major compute capability → the
# first CUDA version that supports it. Source:
# https://docs.nvidia.com/datacenter/tesla/drivers/cuda-toolkit-driver-and-architecture-matrix.html
_OLDEST_GPU = {11: (3, 5), 12: (5, 0), 13: (7, 5)}
_FIRST_CUDA = {9: (11, 8), 10: (12, 8), 11: (13, 0), 12: (12, 8)}

# SageMaker's AMIs and their drivers, oldest first, for endpoints and for batch transform. Source:
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProductionVariant.html and
# API_TransformResources.html there
AMIS = {
    "InferenceAmiVersion {} on the endpoint's production variant": {
        "al2-ami-sagemaker-inference-gpu-2-1": 535,
        "al2-ami-sagemaker-inference-gpu-3-1": 550,
        "al2023-ami-sagemaker-inference-gpu-4-1": 580,
    },
    "TransformAmiVersion {} on a batch transform job": {
        "al2-ami-sagemaker-batch-gpu-470": 470,
        "al2-ami-sagemaker-batch-gpu-535": 535,
    },
}

# How a wheel's metadata folder names CUDA: torch-2.4.1+cu121, nvidia_cuda_runtime_cu12-12.4.127,
# nvidia_cuda_runtime-13.0.48, jax_cuda12_plugin-0.4.31, cupy_cuda12x-13.3.0. Some have the minor version.
_NAMES_CUDA = re.compile(r"(?:\+cu|^nvidia_cuda_runtime(?:_cu\d\d)?-|_cuda)(\d\d)\.?(\d*)")
_NEEDS_CUDA = re.compile(r"^Requires-Dist: nvidia-cuda-runtime(?:-cu|\s*[=~>]=\s*)(\d\d)", re.M)


def problems(python: str, serving: bool, gpus: list[dict[str, Any]], root: str = "") -> list[str]:
    """One line, with the remedy, for the driver and for each GPU that does not support the wheels' CUDA.

    `python` is the path of the interpreter that runs user code, `gpus` has the facts of each GPU. Empty if
    no wheel brings CUDA.
    """
    cuda, wheel = installed_cuda(python, root)
    if cuda[0] not in OLDEST_DRIVER:
        return []
    driver = driver_version(root) or next((gpu["driver"] for gpu in gpus if gpu["driver"]), "")
    lines = [_driver_problem(driver, cuda[0], wheel, serving, root)]
    lines += [_gpu_problem(gpu, cuda, wheel) for gpu in gpus]
    return [*dict.fromkeys(filter(None, lines))]


def _driver_problem(driver: str, cuda: int, wheel: str, serving: bool, root: str) -> str:
    """Empty if it suffices or is unknown, or NVIDIA's forward-compatibility package makes up for it."""
    release, oldest = _release(driver), OLDEST_DRIVER[cuda]
    if not release or release >= oldest:
        return ""
    packages = _compatibility_packages(root, oldest)
    if any(_is_loaded(package, root) for package in packages):
        return ""
    ways = []
    for setting, amis in AMIS.items() if serving else ():
        if fits := [name for name, has in amis.items() if has >= oldest]:
            ways.append(f"set {setting.format(fits[0])}")
    if fitting := [each for each, least in OLDEST_DRIVER.items() if release >= least]:
        ways.append(f"install wheels for CUDA {fitting[-1]}")
    libraries = (
        f"put {packages[0]} into LD_LIBRARY_PATH" if packages else "install NVIDIA's package cuda-compat"
    )
    ways += ["use a host with a newer driver", f"on a data-center GPU {libraries}"]
    return (
        f"the NVIDIA driver {driver} of this host is too old for CUDA {cuda}, which {wheel} brings "
        f"and which needs driver {oldest} or later: {'; or '.join(ways)}"
    )


def _gpu_problem(gpu: dict[str, Any], cuda: tuple[int, int], wheel: str) -> str:
    """Empty if supported, or of unknown capability. An unknown minor version counts as the last."""
    capability = tuple(int(part) for part in gpu["capability"].split(".") if part.isdigit())
    if len(capability) != 2:
        return ""
    what = f"the GPU {gpu['name']} (compute capability {gpu['capability']})"
    major, minor = cuda
    oldest, first = _OLDEST_GPU[major], _FIRST_CUDA.get(capability[0], (0, 0))
    if capability < oldest:
        return (
            f"{what} is too old for CUDA {major}, which {wheel} brings and which needs "
            f"{oldest[0]}.{oldest[1]} or later: install wheels for CUDA {major - 1}; or use a newer GPU"
        )
    if (major, 99 if minor < 0 else minor) < first:
        built = f"{major}" if minor < 0 else f"{major}.{minor}"
        return (
            f"{what} is newer than CUDA {built}, which {wheel} brings: install wheels for CUDA "
            f"{first[0]}.{first[1]} or later"
        )
    return ""


def driver_version(root: str = "") -> str:
    """The version of the loaded kernel driver, such as 535.183.01; empty without one."""
    found = re.search(r"\s(\d{3,}\.\d+(?:\.\d+)?)\s", read(f"{root}/proc/driver/nvidia/version"))
    return found[1] if found else ""


def installed_cuda(python: str, root: str = "") -> tuple[tuple[int, int], str]:
    """The highest CUDA version that a wheel of this Python brings, and that wheel; 0 without one.

    The minor version is -1 if the wheel does not name it."""
    found = ((0, -1), "")
    # Not resolved: the link lies in the virtual environment.
    prefix = os.path.dirname(os.path.dirname(python))
    for folder in glob.glob(f"{root}{prefix}/lib/python3*/*-packages/*.dist-info"):
        wheel = os.path.basename(folder).removesuffix(".dist-info")
        if named := _NAMES_CUDA.search(wheel):
            cuda = int(named[1]), int(named[2] or -1)
        elif wheel.startswith("onnxruntime_gpu-") and (
            named := _NEEDS_CUDA.search(read(f"{folder}/METADATA"))
        ):
            cuda = int(named[1]), -1  # the only wheel that names CUDA only in its requirements
        else:
            continue
        found = max(found, (cuda, wheel))
    return found


def _compatibility_packages(root: str, oldest: int) -> list[str]:
    """Folders of NVIDIA's forward-compatibility package from a driver that is new enough.

    https://docs.nvidia.com/deploy/cuda-compatibility/forward-compatibility.html
    """
    found = []
    for path in glob.glob(f"{root}/usr/local/cuda*/compat/libcuda.so.*.*"):
        folder, _, made_from = path.removeprefix(root).rpartition("/libcuda.so.")
        if _release(made_from) >= oldest:
            found.append(folder)
    return found


def _is_loaded(folder: str, root: str) -> bool:
    """Whether LD_LIBRARY_PATH or the loader's cache has this folder."""
    in_path = folder in os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return in_path or f"{folder}/libcuda.so.1" in read(f"{root}/etc/ld.so.cache")


def _release(driver: str) -> int:
    """535 for 535.183.01; 0 if it is not a version."""
    release = driver.partition(".")[0]
    return int(release) if release.isdecimal() else 0
