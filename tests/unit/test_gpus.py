"""NVML, with a fake library that fails as drivers do, and which GPUs CUDA exposes to a program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from optml import gpus, machine, nvml, paths
from optml.gpus import Gpu, find, for_one_process
from tests.support.matrix import ROOT
from tests.support.nvml import FACTS, NEEDED, OF_SLICES, STATE, build
from tests.support.wheels import of_the_images


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    build(folder)
    zipfile.ZipFile(of_the_images("nvidia_ml_py")).extract("pynvml.py", folder)
    return folder


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path) -> Path:
    """Three device files, and the fake driver."""
    dev = tmp_path / "dev"
    dev.mkdir()
    for name in ("nvidiactl", "nvidia0", "nvidia1", "nvidia2", "nvidia-uvm", "nvidia-caps"):
        (dev / name).touch()
    monkeypatch.setattr(machine, "DEV", str(dev))
    monkeypatch.setattr(paths, "DEPS", str(library))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    return dev


def ids(visible: str | None = None) -> list[str]:
    return [gpu.id for gpu in find(visible)]


def test_the_gpus_are_those_that_nvml_lists(capfd: pytest.CaptureFixture[str]) -> None:
    found = find(None)
    assert [gpu.id for gpu in found] == ["GPU-00000001-aaaa", "GPU-00000002-aaaa"]
    gpu = found[1]
    assert (gpu.index, gpu.name, gpu.memory, gpu.used) == (1, "Fake GPU", 16 << 30, 0)
    assert (gpu.driver, gpu.cuda, gpu.capability) == ("535.54.03", "12.2", "8.0")
    assert capfd.readouterr().err == ""


def trouble(monkeypatch: pytest.MonkeyPatch, call: str, kind: str) -> None:
    monkeypatch.setenv("TROUBLE", call)
    monkeypatch.setenv("KIND", kind)
    if kind == "hangs" or call == "nvmlDeviceGetMaxMigDeviceCount":
        monkeypatch.setattr(gpus, "_PATIENCE", 0.2)
    if call in OF_SLICES:
        monkeypatch.setenv("SLICES", "2")


@pytest.mark.parametrize("call", FACTS)
@pytest.mark.parametrize("kind", ["hangs", "crashes", "fails"])
def test_a_broken_driver_leaves_the_device_files(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], call: str, kind: str
) -> None:
    """The three files, and a log line, if the query fails or lists no GPU; else what NVML reports."""
    trouble(monkeypatch, call, kind)
    found, err = ids(), capfd.readouterr().err
    if kind == "fails" and call not in NEEDED:
        assert found[-1] == "GPU-00000002-aaaa" and err == ""
    else:
        assert found == ["0", "1", "2"]
        assert err.count("\n") == 1 and "NVML does not tell the GPUs" in err


def test_a_driver_that_hangs_gets_two_seconds() -> None:
    assert gpus._PATIENCE < 2


BOTH = ["GPU-00000001-aaaa", "GPU-00000002-aaaa"]
LIES = {
    "nvmlDeviceGetMaxMigDeviceCount": ["0", "1", "2"],  # four billion, more than can be queried in time
    "nvmlDeviceGetMigDeviceHandleByIndex": ["MIG-00001001-ffff", "MIG-00001002-ffff", BOTH[1]],
    "nvmlDeviceGetMigMode": [],  # all are in slices, and there are none: CUDA would see no GPU either
}


@pytest.mark.parametrize("call", [call for call in FACTS if call not in NEEDED])
def test_an_impossible_optional_value_costs_no_gpu(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    trouble(monkeypatch, call, "lies")
    assert ids() == LIES.get(call, BOTH)


@pytest.mark.parametrize("call", NEEDED[1:])
@pytest.mark.parametrize("lie", ["0", "5", "100000", "-1"])
def test_an_impossible_list_leaves_the_device_files(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], call: str, lie: str
) -> None:
    """More GPUs than files, none at all, or one GPU twice."""
    trouble(monkeypatch, call, "lies")
    monkeypatch.setenv("LIE", lie)
    assert ids() == ["0", "1", "2"]
    assert capfd.readouterr().err.count("\n") == 1


def test_a_gpu_name_cannot_break_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    trouble(monkeypatch, "nvmlDeviceGetName", "lies")
    assert [gpu.name for gpu in find(None)] == ["Fake GPU"] * 2


def test_an_old_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path) -> None:
    """It has only the oldest calls."""
    build(tmp_path, "-DOLD")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = find(None)
    assert [gpu.name for gpu in found] == ["Fake GPU", "Fake GPU"]
    assert (found[0].memory, found[0].driver) == (0, "")


def test_a_driver_that_hangs_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    trouble(monkeypatch, "nvmlInit", "hangs")
    before = len(os.listdir("/proc/self/fd"))
    find(None)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_without_a_driver_nvml_is_not_queried(monkeypatch: pytest.MonkeyPatch, driver: Path) -> None:
    (driver / "nvidiactl").unlink()
    monkeypatch.setattr(sys, "executable", "/absent")
    assert find(None) == [] and gpus.memory() == [] and gpus.state() == ""


def test_start_up_without_a_gpu_costs_no_file_no_process_and_no_import() -> None:
    code = """if True:
        import __future__, os, sys
        sys.path.insert(0, sys.argv[1])
        before = set(sys.modules)
        from optml import gpus, machine
        added = set(sys.modules) - before
        machine.DEV, events = "/absent", []
        sys.addaudithook(lambda event, _: events.append(event))
        found = gpus.find(None), gpus.find("0"), gpus.memory(), gpus.state()
        sys.stdout.write(f"{found} {events} {sorted(added)}")
    """
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT / "runtime")]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    ours = ["optml", "optml.gpus", "optml.hints", "optml.machine", "optml.paths", "optml.report"]
    assert printed == f"([], [], [], '') [] {ours}"


def test_wsl2_has_one_device_for_all_gpus(driver: Path) -> None:
    for file in driver.iterdir():
        file.unlink()
    (driver / "dxg").touch()
    assert ids() == ["GPU-00000001-aaaa", "GPU-00000002-aaaa"]


@pytest.mark.parametrize("order", ["void", "none", "all", "GPU-8932f937", "MIG-17", "0"])
def test_what_the_toolkit_was_asked_for_is_ignored(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    """With CDI the variable is void beside real GPUs; a privileged container sees them all."""
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", order)
    assert len(ids()) == 2


@pytest.mark.parametrize(
    ("visible", "shown"),
    [
        (None, ["GPU-00000001-aaaa", "GPU-00000002-aaaa"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("void", []),
        ("1", ["1"]),
        ("1, 0", ["1", "0"]),
        ("0,9,1", ["0"]),  # CUDA stops at what names no GPU
        ("0,-1,1", ["0"]),
        ("99999999999999999999", []),
        ("GPU-00000002", ["GPU-00000002"]),
        ("GPU-00000002-aaaa,GPU-9", ["GPU-00000002-aaaa"]),
        ("MIG-00001001-ffff", []),
    ],
)
def test_what_cuda_exposes(visible: str | None, shown: list[str]) -> None:
    assert ids(visible) == shown


@pytest.mark.parametrize(
    ("visible", "shown"), [("0,2", ["0", "2"]), ("3", []), ("GPU-a,MIG-17", ["GPU-a", "MIG-17"])]
)
def test_what_cuda_exposes_without_nvml(
    monkeypatch: pytest.MonkeyPatch, visible: str, shown: list[str]
) -> None:
    monkeypatch.setattr(paths, "DEPS", "/absent")  # an image without pynvml
    assert ids(visible) == shown
    assert gpus.memory() == [] and gpus.state() == ""


@pytest.mark.parametrize(
    ("visible", "shown", "usable"),
    [
        (None, ["MIG-00001001-ffff", "MIG-00001002-ffff", "GPU-00000002-aaaa"], ["MIG-00001001-ffff"]),
        ("MIG-00001002-ffff", ["MIG-00001002-ffff"], ["MIG-00001002-ffff"]),
        ("MIG-00001002,MIG-00001001", ["MIG-00001002-ffff", "MIG-00001001-ffff"], ["MIG-00001002-ffff"]),
        ("MIG-GPU-8932f937/1/0", ["MIG-GPU-8932f937/1/0"], ["MIG-GPU-8932f937/1/0"]),
        ("0", ["MIG-00001001-ffff"], ["MIG-00001001-ffff"]),
        ("1", ["1"], ["1"]),
        ("MIG-9", [], []),
    ],
)
def test_slices(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, shown: list[str], usable: list[str]
) -> None:
    """A process gets at most one slice, and no whole GPU beside it."""
    monkeypatch.setenv("SLICES", "2")
    assert ids(visible) == shown
    assert [gpu.id for gpu in for_one_process(find(visible))] == usable


def test_one_process_can_use_all_whole_gpus() -> None:
    both = [Gpu(0, "GPU-a"), Gpu(1, "GPU-b")]
    assert for_one_process(both) == both


def test_the_state_names_the_processes_that_hold_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USED", "15360")
    monkeypatch.setenv("GPUS", "1")
    assert gpus.state() == "GPU 0 (Fake GPU): 15.0 of 16.0 GiB in use, 15.0 GiB by process 4242"


def test_the_state_begins_with_a_lost_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOST", "2")
    monkeypatch.setenv("USED", "1024")
    first, second = gpus.state().split("; ")
    assert first == "GPU 1: GPU is lost, it has fallen off the bus or does not answer: replace the host"
    assert second.startswith("GPU 0 (Fake GPU): 1.0 of 16.0 GiB")


def test_the_state_includes_memory_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECC", "3")
    assert "3 uncorrected memory errors" in gpus.state()


@pytest.mark.parametrize("call", STATE)
@pytest.mark.parametrize("kind", ["hangs", "crashes", "fails", "lies"])
def test_a_driver_that_does_not_report_its_state(
    monkeypatch: pytest.MonkeyPatch, call: str, kind: str
) -> None:
    """One line that says so, after what it has reported; optional values are left out."""
    trouble(monkeypatch, call, kind)
    monkeypatch.setenv("USED", "1024")
    state = gpus.state()
    assert state and "\n" not in state
    if kind in ("hangs", "crashes"):
        assert "NVML does not tell the state of the GPUs (" in state
    elif call not in (*NEEDED, "nvmlDeviceGetMemoryInfo"):
        assert "1.0 of 16.0 GiB in use" in state


@pytest.mark.parametrize("call", NEEDED)
def test_no_memory_is_reported_if_nvml_fails(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    trouble(monkeypatch, call, "fails")
    assert gpus.memory() == []


KMSG = """\
6,1,1000000,-;NVRM: Xid (PCI:0000:10:1c): 31, pid=77, name=python3, Ch 00000008, an old one
4,2,{now},-;NVRM: Xid (PCI:0000:10:1c): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
4,3,{now},-;NVRM: Xid (PCI:0000:10:1c): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
4,4,{now},-;NVRM: Xid (PCI:0000:10:1d): 999, of tomorrow
4,5,{now},c;SUBSYSTEM=pci
6,6,{now},-;usb 1-1: new device
torn
"""


def test_xids_since_the_program_began(tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text(KMSG.format(now=int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1e6)))
    assert nvml.xids(str(tmp_path / "kmsg")) == [
        "Xid 79 of the GPU at PCI:0000:10:1c: the GPU has fallen off the bus: replace the host",
        "Xid 999 of the GPU at PCI:0000:10:1d",
    ]
    assert nvml.xids("/absent") == []
