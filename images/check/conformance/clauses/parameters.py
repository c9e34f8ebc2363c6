"""What the program gets: hyperparameters, channels, environment."""

from __future__ import annotations

import json
from typing import Any

from conformance.clause import clause, expect
from conformance.sources import LOGGING, TRAIN_ENVIRONMENT, TRAIN_INPUT
from conformance.subject import Subject

NEWER = {
    "current_host": "algo-1",
    "current_instance_type": "ml.c5.xlarge",
    "current_group_name": "workers",
    "hosts": ["algo-1"],
    "instance_groups": [
        {"instance_group_name": "workers", "instance_type": "ml.c5.xlarge", "hosts": ["algo-1"]}
    ],
    "network_interface_name": "no-such-interface0",
    "topology": None,
}
CONVENTION = "Follow the toolkits' convention, on which the platform's SDK and users' scripts rely."


def reported(subject: Subject, **how: Any) -> dict[str, Any]:
    """What the program recorded in such a job."""
    job = subject.job({}, **how)
    expect(job.report is not None, f"the program was not run: {job.end}")
    return job.report or {}


def pairs(arguments: list[str]) -> dict[str, str]:
    """The value after each --name."""
    return {a: b for a, b in zip(arguments, [*arguments[1:], ""], strict=True) if a.startswith("-")}


def _arrives(value: str, arguments: list[str]) -> bool:
    """Whether the value is an argument, by itself or as --name=value."""
    return any(a == value or a.endswith(f"={value}") for a in arguments)


@clause(
    "C-PARAM-1",
    "required",
    TRAIN_ENVIRONMENT,
    "Each hyperparameter reaches the program as --name value",
    CONVENTION,
    verb="train",
)
def arguments(subject: Subject) -> None:
    seen = pairs(reported(subject, parameters={"epochs": "3", "optimizer": '"adam"'})["argv"])
    expect((seen.get("--epochs"), seen.get("--optimizer")) == ("3", "adam"), f"the arguments are {seen}")


@clause(
    "C-PARAM-2",
    "required",
    TRAIN_INPUT,
    "Hyperparameters arrive unchanged, including spaces, quotes, $(…), newlines and non-ASCII text",
    "Run the program with a list of arguments, never through a shell.",
    verb="train",
)
def awkward_arguments(subject: Subject) -> None:
    value = "a  b 'c' \"d\" $(touch /opt/ml/model/ran) `id`; e\n日本"
    seen = reported(subject, parameters={"text": value})["argv"]
    expect(_arrives(value, seen), f"{value!r} arrives in {seen}")


@clause(
    "C-PARAM-3",
    "recommended",
    TRAIN_INPUT,
    "Text that looks like a number stays unchanged: 3.10, 007, 1e5",
    "Pass on the text in the file; decode it only for code that needs an object.",
    verb="train",
)
def number_like(subject: Subject) -> None:
    parameters = {"version": "3.10", "agent": "007", "rate": "1e5"}
    seen = reported(subject, parameters=parameters)["argv"]
    changed = [value for value in parameters.values() if not _arrives(value, seen)]
    expect(not changed, f"{', '.join(changed)} is not among the arguments {seen}")


@clause(
    "C-PARAM-4",
    "recommended",
    TRAIN_ENVIRONMENT,
    "Hyperparameters are in the environment as SM_HP_NAME and as a JSON object in SM_HPS",
    CONVENTION,
    verb="train",
)
def parameters_in_environment(subject: Subject) -> None:
    seen = reported(subject, parameters={"epochs": "3"})["environment"]
    expect(seen.get("SM_HP_EPOCHS") == "3", f"SM_HP_EPOCHS is {seen.get('SM_HP_EPOCHS')!r}")
    expect('"epochs"' in seen.get("SM_HPS", ""), f"SM_HPS is {seen.get('SM_HPS')!r}")


@clause(
    "C-FILES-1",
    "recommended",
    TRAIN_INPUT,
    "Without any files in /opt/ml/input/config, the program in SAGEMAKER_PROGRAM runs",
    "Treat an absent file as an empty one: `docker run` on a laptop has none.",
    verb="train",
)
def no_files(subject: Subject) -> None:
    absent = dict.fromkeys(("hyperparameters", "resourceconfig", "inputdataconfig"))
    reported(subject, config=absent)


@clause(
    "C-FILES-2",
    "required",
    TRAIN_INPUT,
    "A current resourceconfig.json is accepted: instance groups, a null topology, an interface that does not exist",
    "Ignore unknown keys, and fall back to an interface that exists.",
    verb="train",
)
def newer_resources(subject: Subject) -> None:
    reported(subject, config={"resourceconfig": NEWER})


@clause(
    "C-FILES-3",
    "required",
    TRAIN_INPUT,
    "If hyperparameters.json is not JSON, the container exits with a non-zero code",
    "Exit with an error that says which file is broken, and where.",
    verb="train",
)
def broken_file(subject: Subject) -> None:
    subject.job({})
    job = subject.job({}, files={"/opt/ml/input/config/hyperparameters.json": '{"epochs": '})
    expect(job.code != 0, job.end)


@clause(
    "C-CHANNEL-1",
    "required",
    TRAIN_ENVIRONMENT,
    "SM_CHANNEL_NAME is the folder of each channel, with its data",
    CONVENTION,
    verb="train",
)
def channels(subject: Subject) -> None:
    seen = reported(subject)["channels"]
    expect(seen.get("SM_CHANNEL_TRAIN") == ["data.csv"], f"the channels are {seen}")


@clause(
    "C-CHANNEL-2",
    "recommended",
    TRAIN_ENVIRONMENT,
    "SM_CHANNELS lists the channels, sorted",
    CONVENTION,
    verb="train",
)
def channel_list(subject: Subject) -> None:
    mode = {"TrainingInputMode": "File"}
    files = {f"/opt/ml/input/data/{name}": None for name in ("zeta", "alpha")}
    seen = reported(
        subject, config={"inputdataconfig": {"zeta": mode, "train": mode, "alpha": mode}}, files=files
    )
    expect(
        seen["environment"].get("SM_CHANNELS") == '["alpha","train","zeta"]',
        f"SM_CHANNELS is {seen['environment'].get('SM_CHANNELS')!r}",
    )


@clause(
    "C-CHANNEL-3",
    "recommended",
    TRAIN_INPUT,
    "A channel in Pipe mode, which has no folder, also has SM_CHANNEL_NAME, and the program runs",
    "Do not open channels: the platform creates NAME_0, NAME_1, … for the program to read, one per epoch.",
    verb="train",
)
def pipe_mode(subject: Subject) -> None:
    modes = {"train": {"TrainingInputMode": "File"}, "stream": {"TrainingInputMode": "Pipe"}}
    seen = reported(subject, config={"inputdataconfig": modes})["environment"].get("SM_CHANNEL_STREAM")
    expect(seen == "/opt/ml/input/data/stream", f"SM_CHANNEL_STREAM is {seen!r}")


@clause(
    "C-HOSTS-1",
    "recommended",
    TRAIN_INPUT,
    "On several hosts, the program gets its host's name and those of all hosts: SM_CURRENT_HOST, SM_HOSTS",
    CONVENTION,
    verb="train",
)
def several_hosts(subject: Subject) -> None:
    hosts = ["algo-1", "algo-2", "algo-3"]
    resources = {"current_host": "algo-2", "hosts": hosts, "network_interface_name": "eth0"}
    others = {"algo-1": "127.0.0.1", "algo-3": "127.0.0.1"}
    how = {"hostname": "algo-2", "extra_hosts": others}
    seen = reported(subject, config={"resourceconfig": resources}, **how)["environment"]
    names = seen.get("SM_CURRENT_HOST"), json.loads(seen.get("SM_HOSTS", "[]"))
    expect(names == ("algo-2", hosts), f"SM_CURRENT_HOST and SM_HOSTS are {names}")


@clause(
    "C-ENV-1",
    "required",
    TRAIN_INPUT,
    "The variables in the job's Environment reach the program",
    "Let the program inherit the environment.",
    verb="train",
)
def own_environment(subject: Subject) -> None:
    seen = reported(subject, environment={"MY_SETTING": "a b=c"})["environment"]
    expect(seen.get("MY_SETTING") == "a b=c", f"MY_SETTING is {seen.get('MY_SETTING')!r}")


@clause(
    "C-ENV-2",
    "recommended",
    TRAIN_ENVIRONMENT,
    "SM_MODEL_DIR, SM_OUTPUT_DATA_DIR, SM_CURRENT_HOST, SM_HOSTS, SM_NUM_CPUS and SM_NUM_GPUS are set",
    CONVENTION,
    verb="train",
)
def toolkit_environment(subject: Subject) -> None:
    seen = reported(subject)["environment"]
    names = (
        "SM_MODEL_DIR",
        "SM_OUTPUT_DATA_DIR",
        "SM_CURRENT_HOST",
        "SM_HOSTS",
        "SM_NUM_CPUS",
        "SM_NUM_GPUS",
    )
    absent = [name for name in names if name not in seen]
    expect(not absent, f"not set: {', '.join(absent)}")


@clause(
    "C-ENV-3",
    "recommended",
    TRAIN_ENVIRONMENT,
    "SM_NUM_CPUS is the number of CPUs that the container may use, not that of the machine",
    "Read the CPU affinity and the cgroup's quota.",
    verb="train",
)
def cpus(subject: Subject) -> None:
    seen = reported(subject, cpuset_cpus="0")["environment"].get("SM_NUM_CPUS")
    expect(seen in (None, "1"), f"the container may use one CPU, and SM_NUM_CPUS is {seen}")


@clause(
    "C-SECRET-1",
    "hardened",
    LOGGING,
    "Values whose names mark them as secrets are not in the log",
    "Mask the values of names with PASSWORD, SECRET, TOKEN or KEY wherever you print arguments or variables.",
    verb="train",
)
def masked(subject: Subject) -> None:
    secret = "correct-horse-battery"
    job = subject.job({}, parameters={"db_password": secret}, environment={"MY_API_TOKEN": f"{secret}-2"})
    expect(secret not in job.stdout + job.stderr, "it is in the log")
