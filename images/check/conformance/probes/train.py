# Runs as the user's program: records how it was started, then follows PLAN.
# Line 1 of the file that the image runs is `PLAN = {…}`.
import json
import os
import signal
import subprocess
import sys
import time

ML = "/opt/ml"


def record():
    cpu = os.environ.get("SM_NUM_CPUS")
    found = {
        "argv": sys.argv[1:],
        "environment": dict(os.environ),
        "uid": os.getuid(),
        "pid": os.getpid(),
        "cpus": cpu,
        "channels": {},
    }
    for name, path in os.environ.items():
        if name.startswith("SM_CHANNEL_"):
            found["channels"][name] = sorted(os.listdir(path)) if os.path.isdir(path) else None
    with open(ML + "/model/conformance.json", "w") as file:
        json.dump(found, file)


def note(name):
    with open(ML + "/model/" + name, "w") as file:
        file.write(str(time.time()))


def deep(n):
    # Two functions in turn: a traceback abbreviates a single function that calls itself.
    if n:
        deeper(n - 1)
    raise RuntimeError("conformance went wrong: \u00e9")


def deeper(n):
    deep(n)


def on_stop(number, frame):
    note("stopped")
    sys.exit(PLAN.get("exit", 0))


def main(plan):
    for stream, text in plan.get("write", []):
        out = sys.stdout if stream == 1 else sys.stderr
        out.buffer.write(text.encode())
        out.flush()
    for path, text in plan.get("files", {}).items():
        with open(path, "w") as file:
            file.write(text)
    if plan.get("orphan"):
        for _ in range(5):
            subprocess.call(["sh", "-c", "sleep 0.2 &"])
        time.sleep(1.5)
        note("waited")
        zombies = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/" + pid + "/stat") as file:
                    state, parent = file.read().rsplit(")", 1)[1].split()[:2]
            except OSError:
                continue
            zombies += state == "Z" and parent != str(os.getpid())
        with open(ML + "/model/zombies", "w") as file:
            file.write(str(zombies))
    if plan.get("wait"):
        signal.signal(signal.SIGTERM, on_stop)
        note("waiting")
        time.sleep(600)
    if plan.get("wait-plainly"):
        note("waiting")
        time.sleep(600)
    if plan.get("raise"):
        deep(plan["raise"])
    if plan.get("kill"):
        os.kill(os.getpid(), plan["kill"])
        time.sleep(30)
    if plan.get("memory"):
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1024)) * 10240)
    sys.exit(plan.get("exit", 0))


record()
main(PLAN)
