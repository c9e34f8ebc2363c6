"""Sums over the ranks again and again, like a training that is far from its end.

FAILING_RANK is a rank that raises an exception on the way; STEPS is the number of sums.
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
