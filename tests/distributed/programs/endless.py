"""Sums over the ranks again and again, as a training does that has not ended yet.

With FAILING_RANK that rank raises an exception on the way; STEPS says after how many it ends.
"""

import os
import time

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
for step in range(int(os.environ.get("STEPS", "10000"))):
    dist.all_reduce(torch.ones(1))
    if step == 3:
        print("running", flush=True)
        if str(dist.get_rank()) == os.environ.get("FAILING_RANK"):
            raise ValueError("my own words")
    time.sleep(0.1)
