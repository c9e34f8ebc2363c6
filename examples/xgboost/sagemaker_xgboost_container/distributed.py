"""Training on several hosts: XGBoost's tracker on the first, and a worker on each."""

import socket
import time

from xgboost import collective
from xgboost.tracker import RabitTracker

PORT = 9099
SECONDS_TO_MEET = 15 * 60


def rabit_run(exec_fun, args, include_in_training, hosts, current_host, update_rabit_args=False):
    """Call `exec_fun(**args, is_master=…)` on each host; together they train one model.

    Raises ValueError on a host without data.
    """
    if not include_in_training:
        raise ValueError(f"{current_host} has no data in its channels; each host of the job needs some")
    first = sorted(hosts)[0]
    if current_host == first:
        tracker = RabitTracker(len(hosts), host_ip=socket.gethostbyname(first), port=PORT)
        tracker.start()
    _wait_for(first)
    with collective.CommunicatorContext(
        dmlc_communicator="rabit", dmlc_tracker_uri=socket.gethostbyname(first), dmlc_tracker_port=PORT
    ):
        exec_fun(**args, is_master=current_host == first)
    if current_host == first:
        tracker.wait_for()


def _wait_for(first):
    """Wait until the first host's name resolves; XGBoost itself retries until its tracker answers."""
    deadline = time.monotonic() + SECONDS_TO_MEET
    while True:
        try:
            socket.gethostbyname(first)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
