"""What scripts for several hosts call before they contact the others."""

import time


def _wait_hostname_resolution() -> None:
    """Block until the names of all hosts resolve. Raises optml.UserError if one does not in time."""
    from optml.training.rendezvous import PATIENCE, wait_for_name

    from . import training_env

    deadline = time.monotonic() + PATIENCE
    for host in training_env().hosts:
        wait_for_name(host, deadline)
