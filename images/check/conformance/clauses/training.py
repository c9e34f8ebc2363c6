"""How a training job ends, and what it leaves behind."""

from __future__ import annotations

from conformance.clause import clause, expect
from conformance.sources import LOGS, TRAIN_END, TRAIN_OUTPUT
from conformance.subject import Subject

SIGKILL, SIGSEGV = 9, 11
SHOWN = 1024  # characters of the failure file that become the job's FailureReason


@clause(
    "T-EXIT-0",
    "required",
    TRAIN_END,
    "If the program succeeds, the container exits with 0 and leaves no failure file",
    "Exit with the program's code, and write /opt/ml/output/failure only if it is not 0.",
    verb="train",
)
def success(subject: Subject) -> None:
    job = subject.job({})
    expect(job.code == 0, job.end)
    expect(job.failure is None, f"/opt/ml/output/failure is {job.failure!r}")


@clause(
    "T-EXIT-1",
    "required",
    TRAIN_END,
    "If the program ends with an exception, the container exits with a non-zero code",
    "Exit with the program's code: with 0 the job counts as completed, and its model as good.",
    verb="train",
)
def exception(subject: Subject) -> None:
    job = subject.failed_job
    expect(job.code != 0, job.end)


@clause(
    "T-EXIT-2",
    "recommended",
    TRAIN_END,
    "The container exits with the program's exit code",
    "Pass the code on: schedulers and scripts use it to decide whether to retry.",
    verb="train",
)
def own_code(subject: Subject) -> None:
    job = subject.job({"exit": 7})
    expect(job.code == 7, f"the program exits with 7; the container: {job.end}")


@clause(
    "T-EXIT-3",
    "required",
    TRAIN_END,
    "If a signal kills the program, the container exits with a non-zero code",
    "A negative return code of subprocess is a failure, too: exit with 128 + the signal.",
    verb="train",
)
def killed(subject: Subject) -> None:
    job = subject.job({"kill": SIGKILL})
    expect(job.code != 0, f"SIGKILL kills the program; the container: {job.end}")


@clause(
    "T-EXIT-4",
    "required",
    TRAIN_END,
    "If the program does not exist, the container exits with a non-zero code",
    "Exit with an error that names the program and where it was searched for.",
    verb="train",
)
def missing(subject: Subject) -> None:
    subject.job({})
    job = subject.job({"note": "not run"}, program="there_is_no_such_program.py")
    expect(job.code != 0, job.end)


@clause(
    "T-EXIT-5",
    "required",
    TRAIN_END,
    "The exit code does not depend on whether the failure file can be written",
    "Write the file in a `try`, and exit with the program's code in every case.",
    verb="train",
)
def unwritable(subject: Subject) -> None:
    job = subject.job({"raise": 1}, tmpfs={"/opt/ml/output": "ro"})
    expect(job.code != 0, f"the program fails and /opt/ml/output is read-only: {job.end}")


@clause(
    "T-EXIT-6",
    "required",
    TRAIN_END,
    "If the program runs out of memory, the container exits with a non-zero code",
    "SIGKILL ends the program: exit with 137.",
    verb="train",
)
def out_of_memory(subject: Subject) -> None:
    job = subject.job({"memory": True}, mem_limit="256m", memswap_limit="256m")
    expect(job.code != 0, job.end)


@clause(
    "T-FAIL-1",
    "recommended",
    TRAIN_OUTPUT,
    "After an exception, /opt/ml/output/failure contains its type and message",
    "Write the reason to /opt/ml/output/failure: it becomes the job's FailureReason.",
    verb="train",
)
def failure_file(subject: Subject) -> None:
    text = subject.failed_job.failure
    expect(text is not None, "there is no /opt/ml/output/failure")
    expect("conformance went wrong" in (text or ""), f"its text is {(text or '')[:200]!r}")


@clause(
    "T-FAIL-2",
    "recommended",
    TRAIN_OUTPUT,
    f"The first {SHOWN} characters of the failure file contain the exception, however long the traceback is",
    "Write the exception's last line first.",
    verb="train",
)
def failure_is_shown(subject: Subject) -> None:
    text = subject.failed_job.failure
    if text is None or "conformance went wrong" not in text:
        return  # T-FAIL-1 reports it
    expect("conformance went wrong" in text[:SHOWN], f"it begins with {text[:100]!r}")


@clause(
    "T-FAIL-3",
    "required",
    TRAIN_OUTPUT,
    "A failure file written by the program stays unchanged",
    "Write the file only if the program has not.",
    verb="train",
)
def own_failure_file(subject: Subject) -> None:
    plan = {"files": {"/opt/ml/output/failure": "the program's own words"}, "exit": 3}
    text = subject.job(plan).failure
    expect(text == "the program's own words", f"it was replaced by {text!r}")


@clause(
    "T-OUT-1",
    "required",
    TRAIN_OUTPUT,
    "Files that the program writes to /opt/ml/model are there after the container has exited",
    "Leave the folder alone, and run the program in the container that the platform started.",
    verb="train",
)
def model_stays(subject: Subject) -> None:
    job = subject.job({"files": {"/opt/ml/model/weights": "1 2 3"}})
    expect(job.files.get("model/weights") == b"1 2 3", f"/opt/ml/model has {sorted(job.files)}")


@clause(
    "T-OUT-2",
    "required",
    TRAIN_OUTPUT,
    "Files that the program writes to /opt/ml/output/data are there after the container has exited",
    "Leave the folder alone.",
    verb="train",
)
def data_stays(subject: Subject) -> None:
    job = subject.job({"files": {"/opt/ml/output/data/curve": "up"}})
    expect(job.files.get("output/data/curve") == b"up", f"/opt/ml/output has {sorted(job.files)}")


TEXT = "  indented é 日本 \t no newline"


@clause(
    "T-LOG-1",
    "required",
    LOGS,
    "The program's stdout and stderr are in the container's log",
    "Let the program inherit both: users see nothing else of the job.",
    verb="train",
)
def logged(subject: Subject) -> None:
    job = subject.job({"write": [(1, "to stdout\n"), (2, "to stderr\n")]})
    for words in ("to stdout", "to stderr"):
        expect(words in job.stdout + job.stderr, f"the line {words!r} is lost")


@clause(
    "T-LOG-2",
    "recommended",
    LOGS,
    "stdout stays stdout, stderr stays stderr, and the text stays unchanged",
    "Let the program inherit both, or pass on bytes instead of lines.",
    verb="train",
)
def log_unchanged(subject: Subject) -> None:
    job = subject.job({"write": [(1, f"out {TEXT}\n"), (2, f"err {TEXT}\n")]})
    if not all(words in job.stdout + job.stderr for words in ("out ", "err ")):
        return  # T-LOG-1 reports it
    expect(f"out {TEXT}\n" in job.stdout, "text written to stdout is not in stdout unchanged")
    expect(f"err {TEXT}\n" in job.stderr, "text written to stderr is not in stderr unchanged")
