"""A fake libnvidia-ml.so.1, built with gcc, that behaves as drivers do, broken ones included.

Environment variables set it up. GPUS is the number of GPUs (2); SLICES is the number of MIG slices of the
first. USED is the memory in use in MiB, of 16 GiB; FILLED names a file whose size is added to it. LOST is the
number of a lost GPU, from 1; ECC counts memory errors. DRIVER, CUDA and CAPABILITY are reported as given.
TROUBLE names a call, and KIND what it does: it hangs, crashes, fails, lies, or stops, which sends SIGTERM to
PID 1 and then hangs.
"""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from optml import nvml as asker


def _calls(*functions: Callable[..., object]) -> list[str]:
    """The calls of NVML in the source of these functions, so that a new one cannot go untested."""
    text = "".join(map(inspect.getsource, functions))
    return sorted({"nvmlInit", *re.findall(r"\bnvml\.(nvml\w+)", text)})


FACTS = _calls(asker.facts, asker._line)
STATE = _calls(asker.state)
NEEDED = ("nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID")
"""Without these no GPU can be named."""
OF_SLICES = ("nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex")
"""Asked only where there are slices."""

_SOURCE = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define GPU_IS_LOST 15
#define NOT_FOUND 6
#define TOO_SMALL 7
static const char *text_of(const char *name, const char *otherwise) {
    const char *text = getenv(name);
    return text ? text : otherwise;
}
static int setting(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
static int lies(const char *call) {
    const char *where = getenv("TROUBLE"), *what = getenv("KIND");
    return where && what && !strcmp(where, call) && !strcmp(what, "lies");
}
static int trouble(const char *call) {
    const char *where = getenv("TROUBLE"), *what = getenv("KIND");
    if (!where || strcmp(where, call) || lies(call)) return 0;
    if (!strcmp(what, "stops")) kill(1, SIGTERM);
    if (!strcmp(what, "stops") || !strcmp(what, "hangs")) for (;;) pause();
    if (!strcmp(what, "crashes")) abort();
    return GPU_IS_LOST;
}
/* Handles are numbers: GPUs from 1, slices from 1001. */
int nvmlInitWithFlags(unsigned flags) { return trouble("nvmlInit"); }
int nvmlInit_v2(void) { return trouble("nvmlInit"); }
int nvmlShutdown(void) { return trouble("nvmlShutdown"); }
const char *nvmlErrorString(int code) {
    return code == GPU_IS_LOST ? "GPU is lost" : code == NOT_FOUND ? "Not Found" : "Unknown Error";
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = lies("nvmlDeviceGetCount") ? setting("LIE", 100000) : setting("GPUS", 2);
    return trouble("nvmlDeviceGetCount");
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, size_t *handle) {
    *handle = lies("nvmlDeviceGetHandleByIndex") ? 1 : index + 1;
    return index < setting("GPUS", 2) ? trouble("nvmlDeviceGetHandleByIndex") : NOT_FOUND;
}
int nvmlDeviceGetUUID(size_t handle, char *text, unsigned length) {
    const char *form = handle > 1000 ? "MIG-%08zu-ffff" : "GPU-%08zu-aaaa";
    snprintf(text, length, lies("nvmlDeviceGetUUID") ? "the\nsame\tname" : form, handle);
    return trouble("nvmlDeviceGetUUID");
}
int nvmlDeviceGetName(size_t handle, char *name, unsigned length) {
    strncpy(name, lies("nvmlDeviceGetName") ? "\nFake\tGPU" : "Fake GPU", length);
    return trouble("nvmlDeviceGetName");
}
#ifndef OLD
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    const char *told = text_of("DRIVER", "535.54.03");
    strncpy(text, lies("nvmlSystemGetDriverVersion") ? "\xff\nnone\t" : told, length);
    return trouble("nvmlSystemGetDriverVersion");
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = lies("nvmlSystemGetCudaDriverVersion_v2") ? -1 : setting("CUDA", 12020);
    return trouble("nvmlSystemGetCudaDriverVersion_v2");
}
int nvmlDeviceGetMemoryInfo(size_t handle, unsigned long long *memory) {
    struct stat file;
    memory[0] = lies("nvmlDeviceGetMemoryInfo") ? 0 : 16ULL << 30;
    memory[2] = ((unsigned long long) setting("USED", 0) << 20)
        + (getenv("FILLED") && !stat(getenv("FILLED"), &file) ? file.st_size : 0);
    memory[1] = memory[0] - memory[2];
    return handle == setting("LOST", 0) ? GPU_IS_LOST : trouble("nvmlDeviceGetMemoryInfo");
}
int nvmlDeviceGetCudaComputeCapability(size_t handle, int *major, int *minor) {
    *major = lies("nvmlDeviceGetCudaComputeCapability") ? -1 : setting("CAPABILITY", 80) / 10;
    *minor = setting("CAPABILITY", 80) % 10;
    return trouble("nvmlDeviceGetCudaComputeCapability");
}
int nvmlDeviceGetMigMode(size_t handle, unsigned *now, unsigned *later) {
    *now = *later = lies("nvmlDeviceGetMigMode") || (handle == 1 && getenv("SLICES"));
    return trouble("nvmlDeviceGetMigMode");
}
int nvmlDeviceGetMaxMigDeviceCount(size_t handle, unsigned *count) {
    *count = lies("nvmlDeviceGetMaxMigDeviceCount") ? 4000000000u : 7;
    return trouble("nvmlDeviceGetMaxMigDeviceCount");
}
int nvmlDeviceGetMigDeviceHandleByIndex(size_t handle, unsigned index, size_t *slice) {
    *slice = 1001 + index;
    return index < setting("SLICES", 0) ? trouble("nvmlDeviceGetMigDeviceHandleByIndex") : NOT_FOUND;
}
int nvmlDeviceGetTotalEccErrors(size_t handle, int kind, int since, unsigned long long *count) {
    *count = lies("nvmlDeviceGetTotalEccErrors") ? -1 : setting("ECC", 0);
    return trouble("nvmlDeviceGetTotalEccErrors");
}
int nvmlDeviceGetComputeRunningProcesses_v3(size_t handle, unsigned *count, void *processes) {
    struct { unsigned pid; unsigned long long memory; unsigned instance, part; } *process = processes;
    if (lies("nvmlDeviceGetComputeRunningProcesses")) {
        *count = 2000000000u;
        return processes ? 0 : TOO_SMALL;
    }
    if (trouble("nvmlDeviceGetComputeRunningProcesses")) return GPU_IS_LOST;
    if (!setting("USED", 0)) { *count = 0; return 0; }
    if (*count < 1) { *count = 1; return TOO_SMALL; }
    *count = 1; process->pid = 4242; process->memory = (unsigned long long) setting("USED", 0) << 20;
    return 0;
}
#endif
"""


def build(folder: Path, *options: str) -> Path:
    """The library in this folder."""
    (folder / "nvml.c").write_text(_SOURCE)
    library = folder / "libnvidia-ml.so.1"
    command = ["gcc", "-w", "-shared", "-fPIC", *options, "-o", str(library), str(folder / "nvml.c")]
    subprocess.run(command, check=True)
    return library


def options(library: Path, gpus: int = 2, **variables: object) -> list[str]:
    """Options of `docker run` for this driver and its device files."""
    names = ("ctl", *range(gpus))
    return [
        f"--volume={library}:/usr/lib/{library.name}:ro",
        *(f"--device=/dev/null:/dev/nvidia{name}" for name in names),
        *(f"--env={name}={value}" for name, value in {"GPUS": gpus, **variables}.items()),
    ]
