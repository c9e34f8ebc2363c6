"""Runs inside the container, so that the figures do not include the start of the container.

When the start is measured, each job is PID 1 of its own namespace, as in its own container.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time

LIBC, NEW_PIDS = ctypes.CDLL(None), 0x20000000  # CLONE_NEWPID; Python has both calls since 3.12
OWN_PIDS = os.open("/proc/self/ns/pid", os.O_RDONLY)
CONTENDERS = {
    "bare": ("", "python3", "/opt/ml/code/{}"),
    "optml": ("", "/opt/optml/bin/entrypoint", "train"),
    "sagemaker-training": ("/opt/peers/sagemaker-training/bin", "/opt/peers/sagemaker-training/bin/train"),
    "sagemaker-containers": (
        "/opt/peers/sagemaker-containers/bin",
        "/opt/peers/sagemaker-containers/bin/train",
    ),
}
# More lines would take the peers seconds: they read stderr, as in AWS's framework images.
LINES = {"bare": 300_000, "optml": 300_000, "sagemaker-training": 20_000, "sagemaker-containers": 20_000}
CAPTURING = (
    "from sagemaker_training import entry_point as e; "
    "e.run('/opt/ml/code', 'flood.py', [], dict(PATH=__import__('os').environ['PATH']), capture_error=True)"
)


def started(contender, program, **options):
    path, *command = CONTENDERS[contender]
    if contender == "sagemaker-training" and program == "flood.py":
        command = ["/opt/peers/sagemaker-training/bin/python3", "-c", CAPTURING]
    environment = {**os.environ, "SAGEMAKER_PROGRAM": program, "LINES": str(LINES[contender])}
    environment["BEFORE"] = options.pop("before", "")
    environment["PATH"] = path + ":" + environment["PATH"]
    command = [word.format(program) for word in command]
    assert LIBC.setns(OWN_PIDS, NEW_PIDS) == 0  # not that of an earlier job
    assert program != "start.py" or LIBC.unshare(NEW_PIDS) == 0
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, **options)


def start(contender):
    began = time.perf_counter()
    process = started(contender, "start.py", stderr=subprocess.DEVNULL)
    while b"first line" not in (line := process.stdout.readline()):
        assert line, f"{contender} ended without the first line"
    first = time.perf_counter() - began
    with open(f"/proc/{process.pid}/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{contender} failed"
    return {"first line": first * 1e3, "cpu": (usage.ru_utime + usage.ru_stime) * 1e3, "memory": peak / 1024}


def flood(contender, before=""):
    process = started(contender, "flood.py", stderr=subprocess.STDOUT, before=before)
    out = process.stdout.fileno()
    end, began = b"", None
    while piece := os.read(out, 1 << 20):
        if not began and b"<<<" in piece:
            began = time.perf_counter()
        end = (end + piece)[-4096:] if len(piece) < 4096 else piece[-4096:]
        if b">>>" in end:
            break
    seconds = time.perf_counter() - began
    process.stdout.close()
    process.wait(30)
    return LINES[contender] / seconds / 1e3


def stop(contender):
    process = started(contender, "stop.py", stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    caught = float(process.stdout.readline().split()[1])
    process.wait(30)
    return (caught - sent) * 1e3


def once(contender, number):
    figures = start(contender)
    if number % 3 == 0:  # the longer measurements less often
        figures["output"] = flood(contender)
        if not contender.startswith("sagemaker"):  # the peers never forward a signal
            figures["SIGTERM"] = stop(contender)
        if contender != "sagemaker-containers":
            figures["after exception"] = flood(contender, "Exception\n")
    return figures


def fails(contender):
    try:
        start(contender)
    except (AssertionError, OSError) as error:
        return str(error)


wanted = sys.argv[2:]
failed = {name: error for name in wanted if (error := fails(name))}
rounds = [
    {name: once(name, number) for name in wanted if name not in failed} for number in range(int(sys.argv[1]))
]
print(json.dumps({"rounds": rounds, "failed": failed}))
