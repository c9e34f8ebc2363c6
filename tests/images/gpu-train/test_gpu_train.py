"""What gpu-train adds to cpu-train: the conventions of the NVIDIA container runtime, and no CUDA."""

from __future__ import annotations

from typing import Any

from testinfra.host import Host


def test_asks_for_the_gpus_and_for_compute(config: dict[str, Any]) -> None:
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert not environment.keys() & {"CUDA_VERSION", "NVIDIA_REQUIRE_CUDA", "LD_LIBRARY_PATH"}


def test_the_linker_finds_a_mounted_driver(host: Host) -> None:
    host.check_output(
        "mkdir -p /usr/local/nvidia/lib64 && cp /usr/lib/*/libz.so.1 /usr/local/nvidia/lib64/libcuda.so.1"
    )
    assert "/usr/local/nvidia/lib64" in host.check_output("ldconfig -v 2>/dev/null | grep ^/")


def test_nvml_is_there_and_says_that_there_is_no_driver(host: Host) -> None:
    script = "import sys; sys.path.append('/opt/optml/deps'); import pynvml; pynvml.nvmlInit()"
    result = host.run("/usr/bin/python3 -I -S -c %s", script)
    assert "NVMLError_LibraryNotFound" in result.stderr


def test_without_a_gpu_none_is_counted(host: Host) -> None:
    script = (
        "import sys; sys.path.append('/opt/optml/lib'); from optml import gpus; print(len(gpus.find(None)))"
    )
    assert host.check_output("/usr/bin/python3 -I -S -c %s", script) == "0"
