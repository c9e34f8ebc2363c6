"""Sums over the ranks and records who took part; with UNTIL it goes on, or has one rank fail.

UNTIL is `done` (the default), `stopped`, or the number of the rank that fails.
"""

import json
import os
import socket
import time

from mpi4py import MPI

world = MPI.COMM_WORLD
rank, until = world.Get_rank(), os.environ.get("UNTIL", "done")
found = {
    "rank": rank,
    "ranks": world.Get_size(),
    "sum of ranks": world.allreduce(rank),
    "hosts": world.allgather(socket.gethostname()),
    "environment": dict(os.environ),
}
with open(f"{os.environ['SM_OUTPUT_DATA_DIR']}/rank-{rank}.json", "w") as file:
    json.dump(found, file)
print("running", flush=True)
if until == str(rank):
    raise ValueError("my own words")
while until != "done":
    world.allreduce(rank)
    time.sleep(0.1)
