"""Trains, and fails if a thread of the process group is left: it could abort the process on exit."""

import os
import runpy

runpy.run_path("train.py", run_name="__main__")
assert len(os.listdir("/proc/self/task")) == 1
