"""The environment of the user's program: the SM_* variables of the toolkits and of the SageMaker SDK 3.x.

Strings are passed as they are, None as an empty string, everything else as compact JSON with sorted keys.
Variables that the user set are never overwritten.
"""

from __future__ import annotations

import os

from .. import paths
from ..hints import Any, Mapping
from ..report import log
from . import jsontext
from .arguments import LONGEST, is_carried
from .cluster import MASTER_PORT
from .job import CONSUMED, Job
from .program import Program, which

# Fields of the job that have the same name in the toolkits.
_AS_IN_JOB = (
    *("hosts", "current_host", "resource_config", "input_data_config", "log_level", "model_dir"),
    *("input_dir", "input_config_dir", "output_dir", "output_data_dir", "output_intermediate_dir"),
)


def environment(
    job: Job, program: Program, arguments: list[str], inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """All variables of the program: ours, overridden by those that the container was started with."""
    variables: dict[str, str] = {}
    too_long = []
    for name, value in table(job, program, arguments).items():
        text = written(value)
        if "=" in name or not is_carried(name + text):
            continue  # no environment can hold it
        if len(os.fsencode(name + text)) + 2 > LONGEST:
            too_long.append(name)
        else:
            variables[name] = text
    if too_long:
        log(f"too long for an environment variable (128 KiB), so not set: {', '.join(too_long)}")
    kept = [
        name
        for name in variables
        if name.startswith("SM_") and inherited.get(name) not in (None, variables[name])
    ]
    if kept:
        log(f"set in the container, so the job's own values do not replace them: {', '.join(kept)}")
    variables.update(inherited)
    # So that a script inside a package can import the package.
    path = [program.directory, inherited.get("PYTHONPATH"), *_ours(program.python)]
    variables["PYTHONPATH"] = ":".join(filter(None, path))
    return variables


def _ours(python: str) -> list[str]:
    """The directory for `import optml`, unless the interpreter has a .pth file for it, as in /opt/venv.

    It holds nothing else that could shadow a module of the user's.
    """
    lib = f"{os.path.dirname(os.path.dirname(python))}/lib"
    versions = os.listdir(lib) if os.path.isdir(lib) else []
    knows = any(os.path.isfile(f"{lib}/{version}/site-packages/optml.pth") for version in versions)
    return [] if knows else [paths.LIB]


def written(value: Any) -> str:
    """A value as the environment holds it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    # A float prints as the user wrote it.
    return str(value) if isinstance(value, float) else jsontext.dumps(value)


def training_env(job: Job, program: Program) -> dict[str, Any]:
    """What the toolkits call the training environment: all of SM_TRAINING_ENV."""
    return {
        **_single(job, program),
        "hyperparameters": job.hyperparameters,
        "additional_framework_parameters": _framework_parameters(job),
        "channel_input_dirs": {name: channel.path for name, channel in job.channels.items()},
        "job_name": job.name,
        "is_master": job.current_host == job.master,
        "master_hostname": job.master,
        # With instance groups of which none is distributed, no host is.
        "distribution_hosts": job.distribution_hosts
        if job.distribution_groups or not job.instance_groups
        else [],
        "topology": job.resource_config.get("topology", []),
        # SageMaker's own libraries, for which scripts check before they use them.
        "is_modelparallel_enabled": True if job.hyperparameters.get("mp_parameters") else None,
        "is_smddprun_installed": bool(which("smddprun")),
        "is_smddpmprun_installed": bool(which("smddpmprun")),
    }


def _single(job: Job, program: Program) -> dict[str, Any]:
    return {
        **{name: getattr(job, name) for name in _AS_IN_JOB},
        "network_interface_name": job.network_interface,
        "module_name": program.module if program.kind in ("script", "module") else program.name,
        "module_dir": job.submit_directory or program.directory,
        "framework_module": job.training_module,
        "num_cpus": job.cpus,
        "num_gpus": job.gpus,
        "num_neurons": job.neurons,
        "user_entry_point": program.name,
        "current_instance_type": job.instance_type,
        "current_instance_group": job.instance_group,
        "current_instance_group_hosts": job.current_group_hosts,
        "instance_groups": list(job.instance_groups),
        "instance_groups_dict": job.instance_groups,
        "distribution_instance_groups": job.distribution_groups,
        "is_hetero": len(job.instance_groups) > 1,
    }


def _framework_parameters(job: Job) -> dict[str, Any]:
    return {key: value for key, value in job.framework_parameters.items() if key not in CONSUMED}


def table(job: Job, program: Program, arguments: list[str]) -> dict[str, Any]:
    """Every variable by name, before `written`. Source of the names: sagemaker-training's
    ENVIRONMENT_VARIABLES.md, and the container drivers of the SageMaker SDK 3.x for the last block."""
    port = job.cluster.port if job.cluster else MASTER_PORT
    variables = {f"SM_{name.upper()}": value for name, value in _single(job, program).items()}
    variables.update(
        {
            "SM_HPS": job.hyperparameters,
            "SM_FRAMEWORK_PARAMS": _framework_parameters(job),
            "SM_CHANNELS": sorted(job.channels),
            "SM_TRAINING_ENV": training_env(job, program),
            "SM_USER_ARGS": arguments,
            "SAGEMAKER_JOB_NAME": job.name,
            "SAGEMAKER_REGION": job.region,
            "CURRENT_HOST": job.current_host,
            "MASTER_ADDR": job.master,
            "MASTER_PORT": port,
            "SM_INPUT_DATA_DIR": job.input_data_dir,
            "SM_OUTPUT_FAILURE": paths.FAILURE,
            "SM_MASTER_ADDR": job.master,
            "SM_MASTER_PORT": port,
            "SM_HOST_COUNT": len(job.hosts),
            "SM_CURRENT_HOST_RANK": job.rank,
            "SM_SOURCE_DIR": program.directory,
            "SM_ENTRY_SCRIPT": program.name,
            # No output is lost in a buffer when the program is killed.
            "PYTHONUNBUFFERED": "1",
        }
    )
    if job.resource_config.get("topology") is not None:
        variables["SM_TOPOLOGY"] = job.resource_config["topology"]
    paths_of_channels = {name: channel.path for name, channel in job.channels.items()}
    return {**variables, **_named("SM_CHANNEL", paths_of_channels), **_named("SM_HP", job.hyperparameters)}


def _named(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """A variable for each value, under two names: the toolkits keep a `-`, which no shell can read; the
    SDK 3.x writes `_`. A key spelled with `_` takes precedence over one spelled with `-`."""
    exact = {f"{prefix}_{key.upper()}": value for key, value in values.items()}
    return {**{name.replace("-", "_"): value for name, value in exact.items()}, **exact}
