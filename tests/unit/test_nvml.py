"""What NVML does to whoever asks it, with a library that does what broken drivers do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from optml import machine, paths
from tests.support.matrix import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc here")

# NVML as nvidia-ml-py calls it: two GPUs, or trouble in the call that TROUBLE names.
SOURCE = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int trouble(const char *call) {
    const char *where = getenv("TROUBLE"), *what = getenv("KIND");
    if (!where || strcmp(where, call)) return 0;
    if (!strcmp(what, "hangs")) for (;;) pause();
    if (!strcmp(what, "crashes")) abort();
    return 15;  /* NVML_ERROR_GPU_IS_LOST */
}
int nvmlInitWithFlags(unsigned flags) { return trouble("init"); }
int nvmlInit_v2(void) { return trouble("init"); }
int nvmlShutdown(void) { return trouble("shutdown"); }
const char *nvmlErrorString(int code) { return "GPU is lost"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return trouble("count"); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = handle; return trouble("handle");
}
int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
    strncpy(name, "Fake GPU", length); return trouble("name");
}
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(SOURCE)
    command = ["gcc", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(folder / "nvml.c")]
    subprocess.run(command, check=True)
    wheels = list((ROOT / "build/wheels").glob("nvidia_ml_py-*.whl"))
    if not wheels:
        pytest.skip("no wheel of nvidia-ml-py: run make build/gpu-train")
    zipfile.ZipFile(wheels[0]).extract("pynvml.py", folder)
    return folder


@pytest.fixture(autouse=True)
def gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path) -> None:
    """Three device files, and the fake driver."""
    for name in ("nvidiactl", "nvidia0", "nvidia1", "nvidia2", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(machine, "_DEV", str(tmp_path))
    monkeypatch.setattr(paths, "DEPS", str(library))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))


def test_the_gpus_are_those_that_nvml_names(capfd: pytest.CaptureFixture[str]) -> None:
    assert machine.gpu_names() == ["Fake GPU", "Fake GPU"]
    assert machine.gpu_count() == 2
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("call", ["init", "count", "handle", "name"])
@pytest.mark.parametrize("kind", ["hangs", "crashes", "fails"])
def test_a_broken_driver_leaves_the_device_files(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], call: str, kind: str
) -> None:
    monkeypatch.setenv("TROUBLE", call)
    monkeypatch.setenv("KIND", kind)
    start = time.monotonic()
    assert machine.gpu_count() == 3
    assert time.monotonic() - start < 10
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "NVML does not tell the GPUs" in err


def test_nothing_is_left_of_a_driver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROUBLE", "init")
    monkeypatch.setenv("KIND", "hangs")
    before = len(os.listdir("/proc/self/fd"))
    machine.gpu_count()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_without_a_driver_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").unlink()
    monkeypatch.setattr(sys, "executable", "/absent")
    assert machine.gpu_count() == 0
