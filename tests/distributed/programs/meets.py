"""Sums over the hosts through a socket that the variables of JAX or XGBoost name; records what it saw."""

import json
import os
import socket
import time

environ = os.environ
if "JAX_PROCESS_ID" in environ:
    leader, _, port = environ["JAX_COORDINATOR_ADDRESS"].partition(":")
    rank, size = int(environ["JAX_PROCESS_ID"]), int(environ["JAX_NUM_PROCESSES"])
else:
    leader, port = environ["DMLC_TRACKER_URI"], environ["DMLC_TRACKER_PORT"]
    rank, size = int(environ["DMLC_TASK_ID"]), int(environ["DMLC_NUM_WORKER"])

if rank == 0:
    with socket.create_server(("", int(port))) as server:
        peers = [server.accept()[0] for _ in range(size - 1)]
    total = sum(int(peer.recv(9)) for peer in peers)
    for peer in peers:
        peer.sendall(str(total).encode())
else:
    for _ in range(600):
        try:
            peer = socket.create_connection((leader, int(port)), timeout=60)
            break
        except OSError:
            time.sleep(0.1)
    peer.sendall(str(rank).encode())
    total = int(peer.recv(9))
with open(f"{environ['SM_OUTPUT_DATA_DIR']}/found.json", "w") as file:
    json.dump({"sum of ranks": total, "environment": dict(environ)}, file)
