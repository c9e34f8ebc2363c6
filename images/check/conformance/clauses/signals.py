"""SIGTERM, and the duties of process 1."""

from __future__ import annotations

import time
from threading import Thread

from docker.models.containers import Container

from conformance.clause import Broken, NotChecked, clause, expect
from conformance.engine import read
from conformance.server import Answer
from conformance.sources import DOCKER_INIT, SERVE, TRAIN_RUN
from conformance.subject import Subject
from conformance.training import Job, ended

GRACE = 120  # seconds between SIGTERM and SIGKILL when a job is stopped
SERVE_GRACE = 30  # the same for an instance of an endpoint


def stopped(subject: Subject, plan: dict[str, object], patience: float = GRACE) -> Job:
    """A job that gets SIGTERM while the program runs, without a SIGKILL later."""
    subject.job({})
    with subject.training(plan) as container:
        _wait_for(container, "/opt/ml/model/waiting")
        container.kill("SIGTERM")
        return ended(container, patience)


def _wait_for(container: Container, path: str) -> None:
    deadline = time.monotonic() + 60
    while read(container, path) is None:
        container.reload()
        if container.status != "running" or time.monotonic() > deadline:
            raise Broken("the program does not reach the point where it waits for the signal")
        time.sleep(0.2)


@clause(
    "G-TERM-1",
    "required",
    TRAIN_RUN,
    "SIGTERM reaches the program, which can save its state before it exits",
    "Pass the signal on to the program, and wait for it; with a shell as entry point, `exec` the program.",
    verb="train",
)
def term_reaches_program(subject: Subject) -> None:
    try:
        job = stopped(subject, {"wait": True})
    except Broken as error:
        raise Broken(f"after SIGTERM {error}") from None
    expect("model/stopped" in job.files, f"the program did not get SIGTERM; {job.end}")


@clause(
    "G-TERM-2",
    "recommended",
    TRAIN_RUN,
    "SIGTERM ends a program that does not handle it; no SIGKILL is needed two minutes later",
    "Process 1 ignores signals for which it has no handler: install one, and pass the signal on.",
    verb="train",
)
def term_ends(subject: Subject) -> None:
    # An entry point that kills the program shortly before the platform would has not passed the signal on.
    job = stopped(subject, {"wait-plainly": True}, GRACE / 2)
    expect(job.code != 0, f"a stopped job looks like a success: {job.end}")


@clause(
    "G-TERM-3",
    "recommended",
    TRAIN_RUN,
    "If the program handles SIGTERM and exits with a code of its own, that code is kept",
    "Wait for the program after the signal, and exit with its code.",
    verb="train",
)
def term_code(subject: Subject) -> None:
    job = stopped(subject, {"wait": True, "exit": 42})
    if "model/stopped" not in job.files:
        raise NotChecked("the program does not get the signal: see G-TERM-1")
    expect(job.code in (42, 143), job.end)


@clause(
    "G-ORPHAN-1",
    "recommended",
    DOCKER_INIT,
    "Orphaned processes leave no zombies",
    "Process 1 must wait for every child, including those that it has not started.",
    verb="train",
)
def orphans(subject: Subject) -> None:
    job = subject.job({"orphan": True})
    count = int(job.files.get("model/zombies", b"0"))
    expect(count == 0, f"{count} of 5 orphans are zombies")


@clause(
    "G-SERVE-1",
    "required",
    SERVE,
    f"After SIGTERM the server exits within {SERVE_GRACE} s",
    "Handle SIGTERM in process 1; with a shell as entry point, `exec` the server.",
    verb="serve",
)
def server_ends(subject: Subject) -> None:
    with subject.serving() as server:
        server.wait_ready(subject.options.start_timeout)
        server.container.kill("SIGTERM")
        expect(server.wait_end(SERVE_GRACE) is not None, f"it is still running after {SERVE_GRACE} s")


@clause(
    "G-SERVE-2",
    "recommended",
    SERVE,
    "A call in progress at SIGTERM is answered",
    "Stop accepting calls, finish those in progress, then exit.",
    verb="serve",
)
def drained(subject: Subject) -> None:
    answers: list[Answer | OSError] = []
    with subject.serving({}) as server:
        server.wait_ready(subject.options.start_timeout)

        def call() -> None:
            try:
                answers.append(server.call(b'{"sleep": 3}'))
            except OSError as error:
                answers.append(error)

        caller = Thread(target=call)
        caller.start()
        time.sleep(1)
        server.container.kill("SIGTERM")
        caller.join()
        server.wait_end(SERVE_GRACE)
    [answer] = answers
    expect(isinstance(answer, Answer) and answer.status == 200, f"the call of 3 s got {answer}")
