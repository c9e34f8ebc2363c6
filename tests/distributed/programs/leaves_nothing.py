"""Trains, and fails if a thread of the process group is left, which could abort the process at its exit."""

import os
import runpy

runpy.run_path("train.py", run_name="__main__")
assert len(os.listdir("/proc/self/task")) == 1
