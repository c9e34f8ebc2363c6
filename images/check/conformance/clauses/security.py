"""Isolation and restrictions under which the image must work."""

from __future__ import annotations

from typing import Any

from conformance.clause import NotChecked, clause, expect
from conformance.sources import HARDENING, ISOLATION, LAMBDA, MODEL_READ_ONLY, SERVERLESS
from conformance.subject import Subject

ANY_USER = {"user": "12345"}
READ_ONLY = {"read_only": True, "tmpfs": {"/tmp": ""}}
NO_RIGHTS = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}


def trains(subject: Subject, **how: Any) -> None:
    """A job works with these options as it does without them."""
    if subject.plain_job.report is None:
        if subject.own_job.code:
            raise NotChecked("the training fails in any case: see E-TRAIN-1")
        job = subject.own(**how)
        expect(job.code == 0, job.end)
        return
    plain = subject.plain_job
    job = subject.job({}, **how)
    expect(job.report is not None and job.code == plain.code, job.end)


def serves(subject: Subject, **how: Any) -> None:
    """A server becomes ready with these options, and answers as it does without them."""
    plain = subject.plain_answer
    with subject.serving(**how) as server:
        server.wait_ready(subject.options.start_timeout)
        answer = server.call()
        expect(answer.status == plain.status, f"/invocations answers {answer}, otherwise {plain}")


@clause(
    "X-NET-1",
    "required",
    ISOLATION,
    "Training works without a network",
    "At start, download nothing that the job did not request.",
    verb="train",
)
def train_isolated(subject: Subject) -> None:
    trains(subject, network="none", extra_hosts={"algo-1": "127.0.0.1"})


@clause(
    "X-NET-2",
    "required",
    ISOLATION,
    "Serving works without internet access",
    "Put models and packages into the image or the model's archive.",
    verb="serve",
)
def serve_isolated(subject: Subject) -> None:
    serves(subject, network=subject.engine.isolated_network())


@clause(
    "X-MODEL-1",
    "recommended",
    MODEL_READ_ONLY,
    "Serving works with a read-only /opt/ml/model",
    "Write to /tmp.",
    verb="serve",
)
def model_read_only(subject: Subject) -> None:
    serves(subject, sealed=True)


@clause(
    "X-MEMORY-1",
    "recommended",
    SERVERLESS,
    "Serving works with 1 GB of memory, the minimum of a serverless endpoint",
    "Derive the number of workers from the container's memory, not from the machine's CPUs.",
    verb="serve",
)
def serve_in_little_memory(subject: Subject) -> None:
    serves(subject, mem_limit="1g", memswap_limit="1g")


@clause(
    "X-UID-1",
    "hardened",
    HARDENING,
    "Training works as a user who is not in /etc/passwd",
    "Do not rely on root, a home folder or a user name; let group 0 write to the folders for output (chmod g=u).",
    verb="train",
)
def train_as_anybody(subject: Subject) -> None:
    trains(subject, **ANY_USER)


@clause(
    "X-UID-2",
    "hardened",
    HARDENING,
    "Serving works as a user who is not in /etc/passwd",
    "Do not rely on root, a home folder or a user name.",
    verb="serve",
)
def serve_as_anybody(subject: Subject) -> None:
    serves(subject, **ANY_USER)


@clause(
    "X-ROOT-1",
    "hardened",
    HARDENING,
    "Training works with a read-only root file system and writable /opt/ml and /tmp",
    "Write results below /opt/ml, and all else to /tmp.",
    verb="train",
)
def train_read_only(subject: Subject) -> None:
    trains(subject, **READ_ONLY)


@clause(
    "X-ROOT-2",
    "recommended",
    LAMBDA,
    "Serving works with a read-only root file system and a writable /tmp, as on serverless endpoints",
    "Write to /tmp, including logs, sockets, caches and PID files.",
    verb="serve",
)
def serve_read_only(subject: Subject) -> None:
    serves(subject, **READ_ONLY)


@clause(
    "X-CAP-1",
    "hardened",
    HARDENING,
    "Training works without capabilities and with no-new-privileges",
    "Change no users, owners or limits at start.",
    verb="train",
)
def train_without_rights(subject: Subject) -> None:
    trains(subject, **NO_RIGHTS)


@clause(
    "X-CAP-2",
    "hardened",
    HARDENING,
    "Serving works without capabilities and with no-new-privileges",
    "Change no users, owners or limits at start, or continue if that is refused.",
    verb="serve",
)
def serve_without_rights(subject: Subject) -> None:
    serves(subject, **NO_RIGHTS)
