"""optml: the runtime of the training and serving images, and the training job for user code.

    import optml

    job = optml.job()
    rows = open(os.path.join(job.channels["train"], "data.csv"))
    rate = job.hyperparameters.get("learning_rate", 0.1)
    torch.save(model, os.path.join(job.model_dir, "model.pt"))

Pure standard library; nothing is read before `job()` is called.
"""

from __future__ import annotations

__all__ = ["Channel", "Job", "UserError", "job"]

from .report import UserError

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from .training.job import Channel, Job

_job: Job | None = None


def job() -> Job:
    """The training job of this container, read from /opt/ml and the environment on the first call.

    Raises optml.UserError if a file in /opt/ml/input/config is invalid.
    """
    global _job
    if _job is None:
        from .training.job import read

        _job = read(in_program=True)
    return _job


def __getattr__(name: str) -> object:
    if name in ("Channel", "Job"):
        from .training import job

        return getattr(job, name)
    raise AttributeError(f"module 'optml' has no attribute {name!r}")
