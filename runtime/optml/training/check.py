"""`train --check`: what a job would run and everything wrong with it, without starting anything.

It follows `train` as far as it can without fetching, installing or waiting for other hosts, and collects
errors instead of stopping at the first.
"""

from __future__ import annotations

import os

from .. import paths
from ..hints import Any, Callable
from ..report import UserError
from . import aws, config, launchers, mpi, privilege, program, secrets, source, train
from . import job as jobs
from .arguments import arguments
from .environment import environment, written
from .job import Job
from .program import Program

# Limits of a request to SageMaker. Source:
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
_MOST = 100
_LONGEST_HYPERPARAMETER = 2500
_LONGEST_VARIABLE = 512

_CONFIGS = ("hyperparameters", "resourceconfig", "resourceConfig", "inputdataconfig", "checkpointconfig")


def check(argv: list[str]) -> int:
    """Print the report, as JSON with `--json`. Return 1 if something is wrong, else 0."""
    report = examine([word for word in argv if word != "--json"])
    if "--json" in argv:
        import json

        print(json.dumps(report, indent=2))
    else:
        print(_text(report))
    return 1 if report["wrong"] else 0


def print_environment() -> int:
    """Print the job as JSON, secrets masked; for `python -m optml env`."""
    import json

    job = jobs.read()
    print(json.dumps(_masked(secrets.without_secrets(job), _hidden(job)), indent=2))
    return 0


def _attempt(wrong: list[str], step: Callable[..., Any], *args: Any) -> Any:
    """The step's result; None if it raises UserError, whose message is added to `wrong`."""
    try:
        return step(*args)
    except UserError as problem:
        if str(problem) not in wrong:
            wrong.append(str(problem))
        return None


def examine(argv: list[str]) -> dict[str, Any]:
    """The report on a job with these arguments after the hyperparameters."""
    wrong: list[str] = []
    report: dict[str, Any] = {"wrong": wrong, "notes": []}
    for name in _CONFIGS:
        _attempt(wrong, config.read, f"{name}.json")
    _attempt(wrong, train.patience)
    job = _attempt(wrong, jobs.read)
    if job is None:
        return dict(_masked(report, secrets.secret_values({})))
    hidden = _hidden(job)
    wrong += _beyond_limits()
    report["notes"] += [
        f"variable {name} has {len(text)} characters; a request to SageMaker allows {_LONGEST_VARIABLE}"
        for name, text in sorted(os.environ.items())
        if len(text) > _LONGEST_VARIABLE
    ]
    entry, directory = _program(wrong, job, report["notes"])
    for key, value in sorted(job.hyperparameters.items()):
        _attempt(wrong, arguments, {key: value})
    if directory:
        report["installs"] = [step.what for step in _attempt(wrong, program.steps, directory) or []]
        if report["installs"] and (arn := os.environ.get("CA_REPOSITORY_ARN")):
            _attempt(wrong, aws.repository_parts, arn)
    if entry:
        report["program"] = entry.as_dict()
        # Without secrets from here on, because masking does not find short ones in text.
        names = ("hyperparameters", "framework_parameters")
        job = Job(**{**vars(job), **{name: secrets.without_secrets(vars(job)[name]) for name in names}})
        words = [*(_attempt(wrong, arguments, job.hyperparameters) or ()), *argv]
        words = secrets.masked_words(words, hidden)
        variables = environment(job, entry, words)
        if user := variables.pop(program.RUN_AS, ""):
            _attempt(wrong, privilege.becoming, user)
            report["user"] = user
        _launch(wrong, report, job, entry, words, variables)
        new = {name: text for name, text in sorted(variables.items()) if os.environ.get(name) != text}
        report["variables"] = secrets.without_secrets(new)
    return dict(_masked(report, hidden))


def _hidden(job: Job) -> list[str]:
    return secrets.secret_values({**job.framework_parameters, **job.hyperparameters})


def _masked(value: Any, hidden: list[str]) -> Any:
    """The value with secrets masked in its strings."""
    if isinstance(value, dict):
        return {key: _masked(item, hidden) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, hidden) for item in value]
    return secrets.mask(value, hidden) if isinstance(value, str) else value


def _program(wrong: list[str], job: Job, notes: list[str]) -> tuple[Program | None, str | None]:
    """The program and the directory of its code; no directory if the code is not here yet."""
    place = job.submit_directory or ""
    if source.is_fetched(job):
        notes.append(f"the code comes from {place or source.ISOLATED} when the job runs: not examined")
        _attempt(wrong, source.refuse, place)
        if place and "://" not in place and not os.path.isfile(place):
            wrong.append(f"the submit directory {place!r} does not exist; mount it")
        name = job.program or job.training_module
        if not name:
            return None, None
        python = program.which("python3") or "python3"
        kind = "script" if name.endswith(".py") else "shell" if name.endswith(".sh") else "command"
        return program.Program(directory=paths.CODE, name=name, kind=kind, python=python), None
    found = _attempt(wrong, source.fetch, job)
    if not found:
        return None, None
    return _attempt(wrong, program.find, job, *found), found[0]


def _launch(
    wrong: list[str],
    report: dict[str, Any],
    job: Job,
    entry: Program,
    words: list[str],
    variables: dict[str, str],
) -> None:
    """Report the launcher and the command line, without mpirun's options: their files exist only in a job."""
    if _attempt(wrong, launchers.engine, job) in ("mpirun", "daemon"):
        _attempt(wrong, mpi.need, "mpirun")
        _attempt(wrong, launchers.refuse_user, os.environ)
        processes = _attempt(wrong, launchers.processes_per_host, job, variables)
        _attempt(wrong, mpi.options, job, job.distribution_hosts, processes or 1)
        report["launcher"], report["argv"] = "mpirun", ["mpirun", *entry.argv, *words]
        return
    launch = _attempt(wrong, launchers.launch, job, entry, words, variables)
    report["launcher"] = launch.engine if launch else None
    report["argv"] = launch.argv if launch else [*entry.argv, *words]
    size = sum(len(os.fsencode(word)) + 9 for word in report["argv"])  # with its NUL and its pointer
    size += sum(len(os.fsencode(name + text)) + 10 for name, text in variables.items())
    if size > (limit := os.sysconf("SC_ARG_MAX")):
        longest = max(variables, key=lambda name: len(variables[name]))
        wrong.append(
            f"arguments and variables have {size} bytes in total, but the kernel allows {limit}; the"
            f" longest is {longest}: pass it as a file in a channel"
        )


def _beyond_limits() -> list[str]:
    """What SageMaker would refuse."""
    parameters = config.read("hyperparameters.json")
    wrong = [
        f"hyperparameter {key!r} has {len(text)} characters; SageMaker allows {_LONGEST_HYPERPARAMETER}"
        for key, value in parameters.items()
        if len(text := written(value)) > _LONGEST_HYPERPARAMETER
    ]
    if len(parameters) > _MOST:
        wrong.append(f"there are {len(parameters)} hyperparameters; SageMaker allows {_MOST}")
    return wrong


def _text(report: dict[str, Any]) -> str:
    lines = []
    if entry := report.get("program"):
        lines.append(f"program    {entry['name']} ({entry['kind']}) in {entry['directory']}")
        lines.append(f"launcher   {report['launcher'] or 'none'}")
        lines.append(f"user       {report.get('user', 'as the container is started')}")
    if report.get("installs"):
        lines.append(f"installs   {', then '.join(report['installs'])}")
    if entry:
        lines.append(f"command    {' '.join(map(secrets.quoted, report['argv']))}")
        lines += ["variables", *(f"  {name}={text}" for name, text in report["variables"].items())]
    lines += [f"note       {note}" for note in report["notes"]]
    lines += [f"wrong      {problem}" for problem in report["wrong"]]
    lines.append(
        "Nothing was started. " + ("Nothing is wrong." if not report["wrong"] else "Something is wrong.")
    )
    return "\n".join(line.replace("\n", "\\n") for line in lines)
