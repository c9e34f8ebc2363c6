"""`train`: the life of a training container, from the platform's files to an exit code."""

from __future__ import annotations

from .. import machine
from ..report import UserError
from . import (
    banner,
    intermediate,
    launchers,
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

# Seconds that a host takes to let the others know that its program does not even start.
_NOTICE = 30.0


def train(argv: list[str]) -> int:
    """Run the training job of this container and return its exit code: that of the user's program.

    `argv` is passed to the program after the hyperparameters. What is wrong with the job is told in
    one line, in the log and in `output/failure`, and gives 1.
    """
    hidden = secrets.secret_values({})
    job = rendezvous = None
    try:
        supervisor.stop_on_signals()
        outcome.prepare()
        killed_before = machine.oom_kills()

        job = jobs.read()
        hidden = secrets.secret_values({**job.framework_parameters, **job.hyperparameters})
        rendezvous = launchers.meet(job)
        directory, named = source.fetch(job)
        entry = program.find(job, directory, named)
        words = arguments(job.hyperparameters) + argv
        variables = environment(job, entry, words)
        banner.start(job, entry, hidden)
        requirements.install(entry, variables)

        linked = rendezvous.join() if rendezvous else None
        launch = launchers.launch(job, entry, words, variables)
        banner.command(launch.argv, hidden)
        upload = intermediate.start(job)
        ended = supervisor.run(launch.argv, launch.environment, directory, linked)
        code = linked.code(ended) if linked else ended.code
        if linked:
            linked.close(code)
        if upload:
            upload.finish()
        if code == 0:
            return outcome.succeed()
        killed = machine.oom_kills() - killed_before
        return outcome.fail(code, outcome.reason(entry.name, ended, killed, hidden), hidden)
    except UserError as problem:
        code, reason, patience = 1, str(problem), _NOTICE
    except supervisor.Stopped as stopped:
        number = stopped.args[0]
        code, reason, patience = 128 + number, f"stopped by signal {number} while no program was running", 0.0
    except Exception as bug:
        reason = f"optml itself failed: {type(bug).__name__}: {bug}; please report it"
        code, patience = 1, _NOTICE
    outcome.fail(code, reason, hidden)
    if job is None:
        rendezvous = launchers.rendezvous_without_job()
    if rendezvous:
        rendezvous.cancel(code, patience)
    return code
