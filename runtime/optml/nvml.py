"""Query NVML: `nvml.py DEPS list` for facts of the GPUs, `nvml.py DEPS state` for what may have gone wrong.

A separate program, because what a broken driver does to it (hang, crash, an error in any call) must not
happen to its callers: `gpus.py` and the runner of a training program. It needs only Python.

`list` prints the number of GPUs, the driver and the CUDA version, then a line for each GPU or MIG slice:
index, UUID, name, bytes of memory, bytes in use, compute capability. Tabs separate the fields; an unknown
one is empty. `state` prints sentences. The first line of both says that the query has begun.
"""

from __future__ import annotations

import os
import re
import sys

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_GIB = 1 << 30
_SHOWN = 3  # GPUs whose state fits in a failure reason

# A record of the kernel log: microseconds since boot, the GPU's PCI address, and the Xid.
_XID = re.compile(r"^\d+,\d+,(\d+),.*;.*NVRM: Xid \((.*?)\): (\d+)", re.M)

# Source: https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
_XIDS = {
    8: "the GPU stopped processing: a kernel ran too long",
    13: "the program did in a kernel what the GPU cannot do, often an index out of bounds",
    31: "the program used an invalid address of the GPU's memory",
    43: "the GPU stopped processing for this program",
    45: "the driver ended the program's work after another error",
    48: "an uncorrectable error of the GPU's memory: replace the host",
    63: "the GPU retires a part of its memory after errors: reset it",
    64: "the GPU cannot retire bad memory: replace the host",
    74: "an NVLink error: check the host",
    79: "the GPU has fallen off the bus: replace the host",
    94: "an error of the GPU's memory affected only this program: restart it",
    95: "an error of the GPU's memory may have affected every program: reset the GPU",
    119: "the GPU's system processor does not answer: reset the GPU",
    120: "the GPU's system processor failed: reset the GPU",
}


def facts(nvml: Any) -> list[str]:
    driver = _optional(nvml.nvmlSystemGetDriverVersion)
    version = _optional(nvml.nvmlSystemGetCudaDriverVersion_v2) or 0
    count = nvml.nvmlDeviceGetCount()
    lines = [f"{count}\t{_text(driver)}\t{version // 1000}.{version % 1000 // 10}"]
    for index in range(count):
        gpu = nvml.nvmlDeviceGetHandleByIndex(index)
        if (_optional(nvml.nvmlDeviceGetMigMode, gpu) or (0,))[0]:
            for part in range(_optional(nvml.nvmlDeviceGetMaxMigDeviceCount, gpu) or 0):
                # Empty places, and slices that are not ours, have no handle.
                if (handle := _optional(nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, part)) is not None:
                    lines.append(_line(nvml, index, handle, gpu))
        else:
            lines.append(_line(nvml, index, gpu, gpu))
    return lines


def _line(nvml: Any, index: int, device: Any, gpu: Any) -> str:
    memory = _optional(nvml.nvmlDeviceGetMemoryInfo, device)
    capability = _optional(nvml.nvmlDeviceGetCudaComputeCapability, gpu) or ()
    fields = (
        index,
        _text(nvml.nvmlDeviceGetUUID(device)),
        _text(_optional(nvml.nvmlDeviceGetName, device)),
        memory.total if memory else "",
        memory.used if memory else "",
        ".".join(map(str, capability)),
    )
    return "\t".join(map(str, fields))


def state(nvml: Any) -> list[str]:
    """The GPUs that are lost or have errors, and those with the fullest memory."""
    found = []
    for index in range(min(nvml.nvmlDeviceGetCount(), 128)):  # only a broken driver counts more
        try:
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
        except nvml.NVMLError as error:
            lost = error.value == nvml.NVML_ERROR_GPU_IS_LOST
            hint = ", it has fallen off the bus or does not answer: replace the host" if lost else ""
            found.append((2.0, f"GPU {index}: {error}{hint}"))
            continue
        words = [f"{memory.used / _GIB:.1f} of {memory.total / _GIB:.1f} GiB in use"]
        for process in _optional(nvml.nvmlDeviceGetComputeRunningProcesses, gpu) or ():
            words.append(f"{(process.usedGpuMemory or 0) / _GIB:.1f} GiB by process {process.pid}")
        fullness = memory.used / (memory.total or 1)
        # Uncorrected errors since the driver was loaded.
        if ecc := _optional(nvml.nvmlDeviceGetTotalEccErrors, gpu, 1, 0):
            words.append(f"{ecc} uncorrected memory errors")
            fullness = 2.0
        name = _text(_optional(nvml.nvmlDeviceGetName, gpu))
        found.append((fullness, f"GPU {index} ({name}): {', '.join(words)}"))
    found.sort(key=lambda entry: -entry[0])
    more = [f"{len(found) - _SHOWN} more GPUs with less in use"] if len(found) > _SHOWN else []
    return [sentence for _, sentence in found[:_SHOWN]] + more


def xids(log: str = "/dev/kmsg") -> list[str]:
    """What the driver has logged since our parent started; empty if the kernel log cannot be read."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    since, found = _start_of(os.getppid()), {}
    while True:
        try:
            record = os.read(fd, 8192)
        except BrokenPipeError:
            continue  # records were overwritten before we read them
        except OSError:
            break  # no more
        if not record:
            break
        for at, place, code in _XID.findall(record.decode("utf-8", "replace")):
            if int(at) / 1e6 >= since:
                meaning = f": {_XIDS[int(code)]}" if int(code) in _XIDS else ""
                found[place, code] = f"Xid {code} of the GPU at {place}{meaning}"
    os.close(fd)
    return list(found.values())


def _start_of(pid: int) -> float:
    """When this process started, in seconds since boot."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def _optional(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or None if the driver or GPU has none."""
    try:
        return call(*arguments)
    except Exception:
        return None


def _text(value: str | None) -> str:
    return " ".join((value or "").split())


def main(deps: str, verb: str) -> None:
    sys.path.append(deps)
    import pynvml

    print("asking", *(xids() if verb == "state" else ()), sep="\n", flush=True)  # NVML may hang
    pynvml.nvmlInit()
    for line in (state if verb == "state" else facts)(pynvml):
        print(line)
    sys.stdout.flush()
    os._exit(0)  # without the driver's cleanup, which takes time and may hang


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
