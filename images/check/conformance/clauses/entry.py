"""The image starts in the way in which the platform starts it."""

from __future__ import annotations

from conformance.clause import clause, expect
from conformance.sources import SERVE, TRAIN_RUN
from conformance.subject import Subject
from conformance.target import NotStarted
from conformance.training import ended

NOT_RUN = {
    125: "the engine could not start it",
    126: "train cannot be executed",
    127: "there is no program train",
}

SCRIPTS = "If a script exists but is not found, its lines end in CR LF or its interpreter is missing."


@clause(
    "E-TRAIN-1",
    "required",
    TRAIN_RUN,
    "`docker run IMAGE train` runs the training",
    f"Put a program named train on PATH, or let ENTRYPOINT handle the argument. {SCRIPTS}",
    verb="train",
)
def train_starts(subject: Subject) -> None:
    job = subject.own_job
    expect(not job.why, job.why)
    expect(job.code not in NOT_RUN, f"{NOT_RUN.get(job.code)}: {job.end}")
    expect(
        job.code == 0, f"the training failed: {job.end}; an image with its own code may need --input or --env"
    )


@clause(
    "E-SERVE-1",
    "required",
    SERVE,
    "`docker run IMAGE serve` starts a server on port 8080, which keeps running",
    f"Put a program named serve on PATH, or let ENTRYPOINT handle the argument; listen on 0.0.0.0:8080. {SCRIPTS}",
    verb="serve",
)
def serve_starts(subject: Subject) -> None:
    expect(not subject.has_ended, subject.not_ready)


@clause(
    "E-OTHER-1",
    "recommended",
    TRAIN_RUN,
    "For a command that does not exist, the container exits with a non-zero code",
    "Exit with 127 for an unknown command: a typo must not look like a success.",
)
def unknown_command(subject: Subject) -> None:
    try:
        with subject.training({}, command=("no-such-command",)) as container:
            job = ended(container, 60)
    except NotStarted:  # without an entry point the engine itself fails, with 127
        return
    expect(job.code != 0, f"`docker run IMAGE no-such-command`: {job.end}")
