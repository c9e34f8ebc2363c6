"""Does the NVIDIA driver of the host fit the CUDA that the user's wheels were built for?

A driver that is too old shows itself at the first kernel only, often as an endpoint that never becomes
healthy. Both sides can be read before anything is imported: the driver from /proc, CUDA from the wheels'
metadata.
"""

from __future__ import annotations

import glob
import os
import re

# CUDA major version → the oldest driver for all of its minor versions. Source:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}

# CUDA major version → SageMaker's AMIs whose driver has it, for endpoints and batch transform. Source:
# https://docs.aws.amazon.com/sagemaker/latest/dg/inference-gpu-drivers.html
_AMIS = {
    12: "InferenceAmiVersion al2-ami-sagemaker-inference-gpu-2-1 on the endpoint's production variant, "
    "TransformAmiVersion al2-ami-sagemaker-batch-gpu-535 on a batch transform job",
    13: "InferenceAmiVersion al2023-ami-sagemaker-inference-gpu-4-1 on the endpoint's production variant",
}

# A wheel's folder of metadata as it names CUDA: torch-2.4.1+cu121, nvidia_cuda_runtime_cu12-12.4.127,
# nvidia_cuda_runtime-13.0.48, jax_cuda12_plugin-0.4.31, cupy_cuda12x-13.3.0.
_NAMES_CUDA = re.compile(r"\+cu(\d\d)|^nvidia_cuda_runtime(?:_cu\d\d)?-(\d\d)\.|_cuda(\d\d)")
_NEEDS_CUDA = re.compile(r"^Requires-Dist: nvidia-cuda-runtime-cu(\d\d)", re.M)


def driver_problem(python: str, serving: bool, root: str = "") -> str | None:
    """What is wrong and what to do, in one line, where the driver is too old for the wheels of this Python.

    `python` is the path of the interpreter that runs the user's code. None where all fits, where no wheel
    brings CUDA, where there is no driver, or where NVIDIA's forward-compatibility package stands in for it.
    """
    driver = driver_version(root)
    cuda, wheel = installed_cuda(python, root)
    oldest = OLDEST_DRIVER.get(cuda)
    if driver is None or oldest is None or _forward_compatible(root):
        return None
    release = int(driver.partition(".")[0])
    if release >= oldest:
        return None
    fitting = max(
        (each for each, least in OLDEST_DRIVER.items() if int(driver.split(".")[0]) >= least), default=0
    )
    ways = [f"set {_AMIS[cuda]}"] if serving and cuda in _AMIS else []
    ways += [f"install wheels for CUDA {fitting}"] if fitting else []
    ways += ["use a host with a newer driver", "install NVIDIA's package cuda-compat"]
    return (
        f"the NVIDIA driver {driver} of this host is too old for CUDA {cuda}, which {wheel} brings "
        f"and which needs driver {oldest} or later: {'; or '.join(ways)}"
    )


def driver_version(root: str = "") -> str | None:
    """The version of the loaded driver, such as 535.183.01, as its kernel module tells; None without one."""
    try:
        with open(f"{root}/proc/driver/nvidia/version", encoding="ascii", errors="replace") as file:
            found = re.search(r"\s(\d{3,}\.\d+(?:\.\d+)?)\s", file.readline())
    except OSError:
        return None
    return found[1] if found else None


def installed_cuda(python: str, root: str = "") -> tuple[int, str]:
    """The highest CUDA major version that a wheel of this Python brings, and which wheel; 0 without."""
    found = (0, "")
    # Not resolved: a virtual environment is where the link lies.
    prefix = os.path.dirname(os.path.dirname(python))
    for folder in glob.glob(f"{root}{prefix}/lib/python3*/*-packages/*.dist-info"):
        wheel = os.path.basename(folder).removesuffix(".dist-info")
        if (name := _NAMES_CUDA.search(wheel)) is not None:
            cuda = int(name[1] or name[2] or name[3])
        elif wheel.startswith("onnxruntime_gpu-"):  # the only one that names CUDA in its requirements alone
            cuda = _required_cuda(f"{folder}/METADATA")
        else:
            continue
        found = max(found, (cuda, wheel))
    return found


def _required_cuda(metadata: str) -> int:
    try:
        with open(metadata, encoding="utf-8", errors="replace") as file:
            named = _NEEDS_CUDA.search(file.read())
    except OSError:
        return 0
    return int(named[1]) if named else 0


def _forward_compatible(root: str) -> bool:
    return bool(glob.glob(f"{root}/usr/local/cuda*/compat/libcuda.so.1"))
