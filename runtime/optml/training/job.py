"""The job: what the platform says about this container's training job, read once.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
Every file is optional, so `docker run IMAGE train` works without any.
"""

from __future__ import annotations

import os

from .. import gpus, machine, paths
from ..hints import Any, Mapping
from ..report import UserError
from . import cluster, config, jsontext
from .arguments import NOT_CARRIED, is_carried
from .cluster import Cluster
from .record import Record

# Hyperparameters that are not for the user's program: these and all `sagemaker_…`.
_PREFIX = "sagemaker_"
_NOT_THE_USERS = ("_tuning_objective_metric", "default_user_module_name")

# The toolkits consume these; the other `sagemaker_…` reach the program as SM_FRAMEWORK_PARAMS.
CONSUMED = (
    *("sagemaker_program", "sagemaker_submit_directory", "sagemaker_enable_cloudwatch_metrics"),
    *("sagemaker_container_log_level", "sagemaker_job_name", "sagemaker_region", "sagemaker_s3_output"),
)

MPI = "sagemaker_mpi_enabled"
TORCHRUN = ("sagemaker_torch_distributed_enabled", "sagemaker_pytorch_ddp_enabled")

_LOG_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "WARN": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}
INFO = 20


class Channel(Record):
    """One input of the job. It can be used as a path: `os.path.join(job.channels["train"], "a.csv")`."""

    name: str
    path: str
    """Its directory. In Pipe mode the data come from the FIFOs `<path>_0`, `<path>_1`, …, one per epoch."""
    mode: str
    """`File`, `FastFile` or `Pipe`."""
    content_type: str | None

    def __fspath__(self) -> str:
        return self.path


class Job(Record):
    """A training job as one of its hosts sees it."""

    name: str
    """The name of the training job; empty if it has none."""
    arn: str
    region: str

    hyperparameters: dict[str, Any]
    """The user's hyperparameters, decoded: `"3"` is 3, `"[1, 2]"` a list; what is not JSON stays
    a string."""
    framework_parameters: dict[str, Any]
    """The `sagemaker_…` hyperparameters, which are for the runtime."""

    hosts: list[str]
    current_host: str
    network_interface: str
    instance_type: str
    """Such as `ml.m5.large`; `local` if unknown."""
    instance_group: str
    """The group of this host; `homogeneousCluster` in a cluster without groups."""
    instance_groups: dict[str, dict[str, Any]]
    """Group name → its `instance_group_name`, `instance_type` and `hosts`."""
    distribution_groups: list[str]
    """The groups on which a distributed launcher runs."""

    channels: dict[str, Channel]

    cpus: int
    """CPUs that this container may use: its affinity and its quota, not the host's number."""
    gpus: int
    """GPUs that the program can use: those of this container that CUDA_VISIBLE_DEVICES selects."""
    gpu_facts: list[dict[str, Any]]
    """Of each: `id` (in CUDA_VISIBLE_DEVICES), `uuid`, `name`, `memory` in bytes, `capability`, `driver`,
    `cuda`; empty if unknown."""
    neurons: int

    program: str | None
    """The entry point that the job names, or None."""
    submit_directory: str | None
    """Where the job's code is: a path, an `s3://` address, or None."""
    training_module: str | None
    log_level: int

    resource_config: dict[str, Any]
    """resourceconfig.json as it is."""
    input_data_config: dict[str, Any]
    """inputdataconfig.json as it is."""

    input_dir: str = paths.INPUT
    input_config_dir: str = paths.CONFIG
    input_data_dir: str = paths.DATA
    model_dir: str = paths.MODEL
    """What is here at the end is the model."""
    output_dir: str = paths.OUTPUT
    output_data_dir: str = paths.OUTPUT_DATA
    """What is here at the end is kept beside the model."""
    output_intermediate_dir: str = paths.OUTPUT_INTERMEDIATE
    checkpoint_dir: str = paths.CHECKPOINTS
    """Copied to S3 while the job runs: `LocalPath` of checkpointconfig.json."""
    cluster: Cluster | None = None
    """The hosts and where they come from; None if nothing names other hosts."""

    @property
    def current_group_hosts(self) -> list[str]:
        """The hosts of this host's instance group."""
        return list(self.instance_groups.get(self.instance_group, {}).get("hosts", ()))

    @property
    def distribution_hosts(self) -> list[str]:
        """The hosts on which a distributed launcher runs, the leader first: those of its groups, or
        all."""
        groups = [
            self.instance_groups[name] for name in self.distribution_groups if name in self.instance_groups
        ]
        return [host for group in groups for host in group["hosts"]] or self.hosts

    @property
    def master(self) -> str:
        """The leader: the first host of the distribution."""
        return self.distribution_hosts[0]

    @property
    def rank(self) -> int:
        """The index of this host among all hosts, from 0."""
        return self.hosts.index(self.current_host)

    def enabled(self, name: str) -> bool:
        """Whether this `sagemaker_…` hyperparameter is on. Raises UserError if it is no boolean."""
        return _is_on(self.framework_parameters, name)


def read(
    environ: Mapping[str, str] = os.environ, given: dict[str, Any] | None = None, in_program: bool = False
) -> Job:
    """Read the job from `/opt/ml/input/config` and the environment; `given` replaces the platform's
    hyperparameters. With `in_program`, the hosts are those that `train` found.

    Raises UserError if a file cannot be read or is invalid.
    """
    decoded = {
        key: jsontext.decode(value) if isinstance(value, str) else value
        for key, value in (given or config.read("hyperparameters.json")).items()
    }
    platform = {key: value for key, value in decoded.items() if key.startswith(_PREFIX)}
    for key, value in platform.items():
        if not is_carried(f"{key}{value}"):
            raise UserError(f"hyperparameter {key!r} holds {NOT_CARRIED}")
    hyperparameters = {
        key: value for key, value in decoded.items() if key not in platform and key not in _NOT_THE_USERS
    }

    def setting(variable: str, parameter: str) -> str | None:
        value = environ.get(variable) or platform.get(parameter)
        return str(value) if value else None

    resources = config.read("resourceconfig.json") or config.read("resourceConfig.json")
    usable = gpus.for_one_process(gpus.find(environ.get("CUDA_VISIBLE_DEVICES")))
    place = (cluster.believed(environ) if in_program else None) or cluster.find(
        resources, environ, len(usable)
    )
    hosts = place.hosts if place else [config.named(resources, "current_host") or "localhost"]
    groups = config.instance_groups(resources)
    group = config.named(resources, "current_group_name") or "homogeneousCluster"
    distributed = platform.get("sagemaker_distribution_instance_groups")
    if not isinstance(distributed, list):
        distributed = [group] if any(_is_on(platform, name) for name in (MPI, *TORCHRUN)) else []
    inputs = config.read("inputdataconfig.json")

    return Job(
        name=environ.get("TRAINING_JOB_NAME") or str(platform.get("sagemaker_job_name") or ""),
        arn=environ.get("TRAINING_JOB_ARN", ""),
        region=region(environ, platform.get("sagemaker_region")),
        hyperparameters=hyperparameters,
        framework_parameters=platform,
        hosts=hosts,
        current_host=hosts[place.rank if place else 0],
        network_interface=machine.network_interface(
            platform.get("sagemaker_network_interface_name")
            or config.named(resources, "network_interface_name")
        ),
        instance_type=str(
            config.named(resources, "current_instance_type")
            or platform.get("sagemaker_instance_type")
            or "local"
        ),
        instance_group=group,
        instance_groups=groups,
        distribution_groups=[str(name) for name in distributed],
        channels=_channels(inputs),
        cpus=machine.cpu_count(),
        gpus=len(usable),
        gpu_facts=[vars(gpu) for gpu in usable],
        neurons=len(machine.devices("neuron")),
        program=setting("SAGEMAKER_PROGRAM", "sagemaker_program"),
        submit_directory=setting("SAGEMAKER_SUBMIT_DIRECTORY", "sagemaker_submit_directory"),
        training_module=environ.get("SAGEMAKER_TRAINING_MODULE") or None,
        log_level=_log_level(setting("SAGEMAKER_CONTAINER_LOG_LEVEL", "sagemaker_container_log_level")),
        resource_config=resources,
        input_data_config=inputs,
        checkpoint_dir=str(config.read("checkpointconfig.json").get("LocalPath") or paths.CHECKPOINTS),
        cluster=place,
    )


def region(environ: Mapping[str, str], parameter: object) -> str:
    """The region that the variables or else this hyperparameter name; empty if none does."""
    return environ.get("SAGEMAKER_REGION") or environ.get("AWS_REGION") or str(parameter or "")


def number(name: str, value: object) -> int:
    """The number of processes in the setting of this name. Raises UserError if it is not one."""
    text = str(value)
    if not text.isdecimal() or len(text) > 9 or int(text) == 0:
        raise UserError(f"{name} is {value!r}; it must be a number from 1 up")
    return int(text)


def _is_on(parameters: Mapping[str, Any], name: str) -> bool:
    text = str(parameters.get(name) or "false").lower()
    if text not in ("true", "1", "false", "0"):
        raise UserError(f"hyperparameter {name!r} is {parameters[name]!r}; it must be true or false")
    return text in ("true", "1")


def _channels(inputs: dict[str, Any]) -> dict[str, Channel]:
    """The channels that the platform names; if it names none, the directories in input/data."""
    if not inputs and os.access(paths.DATA, os.R_OK):
        inputs = {name: {} for name in os.listdir(paths.DATA) if os.path.isdir(f"{paths.DATA}/{name}")}
    channels = {}
    for name in sorted(inputs):
        options = inputs[name] if isinstance(inputs[name], dict) else {}
        channels[name] = Channel(
            name=name,
            path=f"{paths.DATA}/{name}",
            mode=str(options.get("TrainingInputMode") or "File"),
            content_type=options.get("ContentType"),
        )
    return channels


def _log_level(level: str | None) -> int:
    """A number or a level of `logging`; anything else is INFO: no reason to fail a job."""
    if not level:
        return INFO
    return int(level) if level.isdecimal() and len(level) < 10 else _LOG_LEVELS.get(level.upper(), INFO)
