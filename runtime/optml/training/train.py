"""`train`: the life of a training container, from the platform's files to an exit code."""

from __future__ import annotations

from .. import machine
from ..report import Problem
from . import (
    intermediate,
    launchers,
    log,
    outcome,
    program,
    requirements,
    secrets,
    source,
    supervisor,
)
from . import (
    job as jobs,
)
from .arguments import arguments
from .environment import environment


def train(argv: list[str]) -> int:
    """Run the training job of this container and return its exit code: that of the user's program.

    `argv` is passed to the program after the hyperparameters. What is wrong with the job is told in
    one line, in the log and in `output/failure`, and gives 1.
    """
    hidden = secrets.secret_values({})
    try:
        supervisor.stop_on_signals()
        outcome.prepare()
        killed_before = machine.oom_kills()

        job = jobs.read()
        hidden = secrets.secret_values(job.hyperparameters)
        directory, named = source.fetch(job)
        entry = program.find(job, directory, named)
        words = arguments(job.hyperparameters) + argv
        variables = environment(job, entry, words)
        log.start(job, entry, hidden)
        requirements.install(entry, variables)

        launch = launchers.launch(job, entry, words, variables)
        log.command(launch.argv, hidden)
        upload = intermediate.start(job)
        linked = launchers.link(job, launch)
        ended = supervisor.run(launch.argv, launch.environment, directory, linked)
        code = linked.code(ended) if linked else ended.code
        if linked:
            linked.close(code)
        if upload:
            upload.finish()
        if code == 0:
            return outcome.succeed()
        killed = machine.oom_kills() - killed_before
        return outcome.fail(code, outcome.reason(entry.name, ended, killed), hidden)
    except Problem as problem:
        return outcome.fail(1, str(problem), hidden)
    except supervisor.Stopped as stopped:
        number = stopped.args[0]
        return outcome.fail(128 + number, f"stopped by signal {number} while no program was running", hidden)
    except Exception as bug:
        return outcome.fail(1, f"optml itself failed: {type(bug).__name__}: {bug}; please report it", hidden)
