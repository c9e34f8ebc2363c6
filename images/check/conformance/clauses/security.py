"""What careful platforms take away."""

from __future__ import annotations

from typing import Any

from conformance.clause import NotChecked, clause, expect
from conformance.sources import HARDENING, ISOLATION, LAMBDA, MODEL_READ_ONLY, SERVERLESS
from conformance.subject import Subject

ANY_USER = {"user": "12345"}
READ_ONLY = {"read_only": True, "tmpfs": {"/tmp": ""}}
NO_RIGHTS = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}


def trains(subject: Subject, **how: Any) -> None:
    """A job works as it does without this."""
    if subject.plain_job.report is None:
        if subject.own_job.code:
            raise NotChecked("the training fails with this, too: see E-TRAIN-1")
        job = subject.own(**how)
        expect(job.code == 0, job.end)
        return
    plain = subject.plain_job
    job = subject.job({}, **how)
    expect(job.report is not None and job.code == plain.code, job.end)


def serves(subject: Subject, **how: Any) -> None:
    """A server gets ready and answers as it does without this."""
    plain = subject.plain_answer
    with subject.serving(**how) as server:
        server.wait_ready(subject.options.start_timeout)
        answer = server.call()
        expect(answer.status == plain.status, f"/invocations answers {answer}, and else {plain}")


@clause(
    "X-NET-1",
    "required",
    ISOLATION,
    "Training works without a network",
    "Download nothing when the container starts that the job did not ask for.",
    verb="train",
)
def train_isolated(subject: Subject) -> None:
    trains(subject, network="none", extra_hosts={"algo-1": "127.0.0.1"})


@clause(
    "X-NET-2",
    "required",
    ISOLATION,
    "Serving works without a way to the internet",
    "Put models and packages into the image or the model's archive.",
    verb="serve",
)
def serve_isolated(subject: Subject) -> None:
    serves(subject, network=subject.engine.isolated_network())


@clause(
    "X-MODEL-1",
    "recommended",
    MODEL_READ_ONLY,
    "Serving writes nothing to /opt/ml/model, which is read-only",
    "Write to /tmp.",
    verb="serve",
)
def model_read_only(subject: Subject) -> None:
    serves(subject, sealed=True)


@clause(
    "X-MEMORY-1",
    "recommended",
    SERVERLESS,
    "Serving works with 1 GB of memory, the least that a serverless endpoint has",
    "Start as many workers as the memory of the container allows, and not as the machine has processors.",
    verb="serve",
)
def serve_in_little_memory(subject: Subject) -> None:
    serves(subject, mem_limit="1g", memswap_limit="1g")


@clause(
    "X-UID-1",
    "hardened",
    HARDENING,
    "Training works as a user that /etc/passwd does not know",
    "Do not count on root, a home or a name: give what is written to group 0 (chmod g=u).",
    verb="train",
)
def train_as_anybody(subject: Subject) -> None:
    trains(subject, **ANY_USER)


@clause(
    "X-UID-2",
    "hardened",
    HARDENING,
    "Serving works as a user that /etc/passwd does not know",
    "Do not count on root, a home or a name.",
    verb="serve",
)
def serve_as_anybody(subject: Subject) -> None:
    serves(subject, **ANY_USER)


@clause(
    "X-ROOT-1",
    "hardened",
    HARDENING,
    "Training works with a read-only root, where /opt/ml and /tmp can be written",
    "Write to /tmp, and under /opt/ml where results go.",
    verb="train",
)
def train_read_only(subject: Subject) -> None:
    trains(subject, **READ_ONLY)


@clause(
    "X-ROOT-2",
    "recommended",
    LAMBDA,
    "Serving works with a read-only root, where /tmp can be written, as on serverless endpoints",
    "Write to /tmp: logs, sockets, caches and process ids, too.",
    verb="serve",
)
def serve_read_only(subject: Subject) -> None:
    serves(subject, **READ_ONLY)


@clause(
    "X-CAP-1",
    "hardened",
    HARDENING,
    "Training works without any capability, and with no-new-privileges",
    "Change no users, owners or limits when the container starts.",
    verb="train",
)
def train_without_rights(subject: Subject) -> None:
    trains(subject, **NO_RIGHTS)


@clause(
    "X-CAP-2",
    "hardened",
    HARDENING,
    "Serving works without any capability, and with no-new-privileges",
    "Change no users, owners or limits when the container starts, or go on where that is refused.",
    verb="serve",
)
def serve_without_rights(subject: Subject) -> None:
    serves(subject, **NO_RIGHTS)
