"""The log's description of the job before the program starts, without secrets."""

from __future__ import annotations

from .. import machine
from ..report import log
from . import secrets
from .environment import written
from .job import INFO, Job
from .program import Program


def start(job: Job, program: Program, hidden: list[str]) -> None:
    """Log where the hosts come from and, unless the log level is above INFO, the job."""
    if job.cluster:
        log(str(job.cluster))
    if job.log_level > INFO:
        return
    memory = machine.memory_limit()
    facts = {
        "job": job.name,
        "host": f"{job.current_host} ({job.rank + 1} of {len(job.hosts)}), {job.instance_type}",
        "group": job.instance_group if job.instance_groups else "",
        "machine": f"{job.cpus} CPUs, {job.gpus} GPUs" + (f", {memory >> 20} MiB" if memory else ""),
        "GPUs": _gpus(job),
        "network": _network(job),
        "program": f"{program.name} ({program.kind}) in {program.directory}",
        "python": program.python,
        "channels": ", ".join(f"{name} ({channel.mode})" for name, channel in job.channels.items()),
        "parameters": _parameters(job.hyperparameters),
        "platform": _parameters(job.framework_parameters),
    }
    # A line break in a value would look like another fact.
    lines = [f"{name:<12}{fact}".replace("\n", "\\n") for name, fact in facts.items() if fact]
    log(secrets.mask("\n".join(["training environment", *lines]), hidden))


def warn_of_driver(job: Job, program: Program) -> None:
    """Warn, before the program fails, if the driver or a GPU does not support the installed CUDA."""
    if job.gpus:
        from .. import cuda  # only with a GPU: its regular expressions take milliseconds

        for problem in cuda.problems(program.python, False, job.gpu_facts):
            log(f"warning: {problem}")


def _gpus(job: Job) -> str:
    """Each model with its count, and each slice's UUID, for CUDA_VISIBLE_DEVICES."""
    facts = [gpu for gpu in job.gpu_facts if gpu["name"]]
    if not facts:
        return ""
    kinds = [
        f"{gpu['name']}, {gpu['memory'] >> 20} MiB"
        + (f", {gpu['id']}" if gpu["id"].startswith("MIG-") else "")
        for gpu in facts
    ]
    counted = [f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)]
    return f"{'; '.join(counted)}; driver {facts[0]['driver']} for CUDA up to {facts[0]['cuda']}"


def _network(job: Job) -> str:
    named = job.resource_config.get("network_interface_name")
    if named and named != job.network_interface:
        return f"{job.network_interface} (there is no interface {named} here)"
    return job.network_interface


def _parameters(parameters: dict[str, object]) -> str:
    shown = secrets.without_secrets(parameters)
    return " ".join(f"{key}={written(shown[key])}" for key in sorted(shown))
