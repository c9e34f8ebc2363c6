"""What the platform gives a container: its files, each of which may be absent, and its variables."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from tests.support.training import Training

pytestmark = pytest.mark.image("cpu-train")

SHOW = """
import json, os, sys
print(json.dumps({"argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "path": sys.path}))
"""
ASK = "import json, optml; print(json.dumps({}))"

# Those of a real job with two instance groups.
CONFIG: dict[str, Any] = {
    "hyperparameters.json": {"epochs": "3", "lr": "3.10", "sagemaker_program": '"main.py"'},
    "resourceconfig.json": {
        "current_host": "algo-2",
        "current_instance_type": "ml.m5.large",
        "current_group_name": "train",
        "hosts": ["algo-1", "algo-2"],
        "instance_groups": [
            {"instance_group_name": "data", "instance_type": "ml.c5.large", "hosts": ["algo-1"]},
            {"instance_group_name": "train", "instance_type": "ml.m5.large", "hosts": ["algo-2"]},
        ],
        "network_interface_name": "eth0",
        "topology": None,
    },
    "inputdataconfig.json": {
        "train": {
            "TrainingInputMode": "File",
            "ContentType": "text/csv",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        }
    },
    "checkpointconfig.json": {"LocalPath": "/opt/ml/checkpoints"},
}
# Files of the platform that do not concern the program: whatever they hold, nothing trips over them.
OTHERS = (
    *("init-config.json", "trainingjobconfig.json", "upstreamoutputdataconfig.json"),
    *("metric-definition-regex.json", "debughookconfig.json", "profilerconfig.json"),
    "tensorboardoutputconfig.json",
)


@pytest.fixture
def platform(training: Training) -> Training:
    training.code("main.py", SHOW)
    for name, content in CONFIG.items():
        training.config(name, content)
    for name in OTHERS:
        training.config(name, "what is this?")
    (training.root / "input/data/train").mkdir()
    (training.root / "input/data/train-manifest").write_text("")
    return training


def seen(training: Training, *options: str, argv: tuple[str, ...] = (), **variables: str) -> dict[str, Any]:
    """What the program SHOW saw."""
    done = training.train(*options, argv=argv, **variables)
    assert done.code == 0, done.output
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def test_a_job_of_the_platform(platform: Training) -> None:
    variables = {"TRAINING_JOB_NAME": "job-1", "TRAINING_JOB_ARN": "arn:x", "AWS_REGION": "eu-west-1"}
    found = seen(platform, argv=("--extra",), **variables)
    assert found["argv"] == ["main.py", "--epochs", "3", "--lr", "3.10", "--extra"]
    assert found["cwd"] == "/opt/ml/code"
    expected = {
        "SAGEMAKER_JOB_NAME": "job-1",
        "SAGEMAKER_REGION": "eu-west-1",
        "SM_CHANNELS": '["train"]',
        "SM_CHANNEL_TRAIN": "/opt/ml/input/data/train",
        "SM_CURRENT_HOST": "algo-2",
        "SM_CURRENT_INSTANCE_GROUP": "train",
        "SM_CURRENT_INSTANCE_GROUP_HOSTS": '["algo-2"]',
        "SM_CURRENT_INSTANCE_TYPE": "ml.m5.large",
        "SM_INSTANCE_GROUPS": '["data","train"]',
        "SM_IS_HETERO": "true",
        "SM_HP_LR": "3.10",
        "SM_HPS": '{"epochs":3,"lr":3.1}',
        "SM_NETWORK_INTERFACE_NAME": "eth0",
        "SM_USER_ENTRY_POINT": "main.py",
    }
    assert {name: found["env"].get(name) for name in expected} == expected
    assert "SM_TOPOLOGY" not in found["env"]
    assert platform.success


def test_a_network_interface_that_is_not_there_is_replaced(platform: Training) -> None:
    platform.config(
        "resourceconfig.json", {**CONFIG["resourceconfig.json"], "network_interface_name": "ethwe"}
    )
    done = platform.train()
    assert json.loads(done.stdout)["env"]["SM_NETWORK_INTERFACE_NAME"] == "eth0"
    assert "there is no interface ethwe here" in done.stderr


@pytest.mark.parametrize("name", CONFIG)
@pytest.mark.one_variant
def test_each_file_may_be_absent(platform: Training, name: str) -> None:
    (platform.root / "input/config" / name).unlink()
    assert seen(platform, SAGEMAKER_PROGRAM="main.py")["env"]["SM_CHANNELS"] == '["train"]'


@pytest.mark.one_variant
def test_the_camel_case_resource_config(platform: Training) -> None:
    config = platform.root / "input/config"
    (config / "resourceconfig.json").rename(config / "resourceConfig.json")
    assert seen(platform)["env"]["SM_CURRENT_HOST"] == "algo-2"


@pytest.mark.parametrize(
    "name", ["hyperparameters.json", "resourceconfig.json", "inputdataconfig.json", "checkpointconfig.json"]
)
@pytest.mark.one_variant
def test_a_file_that_is_broken_is_named(platform: Training, name: str) -> None:
    platform.config(name, '{"half": ')
    done = platform.train()
    assert done.code == 1
    assert platform.failure.startswith(f"/opt/ml/input/config/{name} is not JSON")
    assert "Traceback" not in done.output


def test_a_channel_in_pipe_mode(training: Training) -> None:
    """The platform makes the FIFO of an epoch when the epoch starts."""
    training.config("inputdataconfig.json", {"train": {"TrainingInputMode": "Pipe"}})
    training.code(
        "train.py",
        "import os, time\n"
        "for epoch in range(2):\n"
        "    fifo = f'{os.environ[\"SM_CHANNEL_TRAIN\"]}_{epoch}'\n"
        "    while not os.path.exists(fifo): time.sleep(0.02)\n"
        "    print(open(fifo).read(), flush=True)\n",
    )
    with training.start() as container:
        for epoch in range(2):
            container.wait_for_log("(Pipe)" if epoch == 0 else "epoch 0")
            fifo = training.root / f"input/data/train_{epoch}"
            os.mkfifo(fifo)
            fifo.write_text(f"epoch {epoch}")
        assert container.wait() == 0
        assert container.log().stdout == "epoch 0\nepoch 1\n"


@pytest.mark.one_variant
def test_checkpoints_lie_where_the_job_says(training: Training) -> None:
    training.config("checkpointconfig.json", {"LocalPath": "/opt/ml/mine", "S3Uri": "s3://bucket/x"})
    training.code("train.py", ASK.format("optml.job().checkpoint_dir"))
    assert training.train().stdout == '"/opt/ml/mine"\n'


@pytest.mark.one_variant
def test_the_variables_of_the_platform_pass_through(training: Training) -> None:
    given = {
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1",
        "SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY": "/opt/ml/sagemaker/warmpoolcache",
        "NVIDIA_VISIBLE_DEVICES": "void",
        "OMP_NUM_THREADS": "7",
        "NCCL_DEBUG": "INFO",
        "SM_MODEL_DIR": "/mine",
        "PYTHONPATH": "/mine",
    }
    training.code("train.py", SHOW)
    found = seen(training, **given)["env"]
    assert {name: found[name] for name in given} == {**given, "PYTHONPATH": "/opt/ml/code:/mine"}
    assert found["SM_NUM_GPUS"] == "0"


@pytest.mark.parametrize(
    ("variables", "expression", "expected"),
    [
        ({"SAGEMAKER_REGION": "eu-north-1", "AWS_REGION": "us-west-2"}, "optml.job().region", "eu-north-1"),
        ({"SAGEMAKER_CONTAINER_LOG_LEVEL": "debug"}, "optml.job().log_level", 10),
        ({"SAGEMAKER_CONTAINER_LOG_LEVEL": "9" * 5000}, "optml.job().log_level", 20),
        ({"SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/code"}, "optml.job().submit_directory", "/opt/ml/code"),
    ],
    ids=["region", "log level", "nonsense", "submit directory"],
)
@pytest.mark.one_variant
def test_settings(training: Training, variables: dict[str, str], expression: str, expected: object) -> None:
    training.code("train.py", ASK.format(expression))
    done = training.train(**variables)
    assert done.code == 0 and json.loads(done.stdout) == expected, done.output


@pytest.mark.one_variant
def test_another_base_directory(training: Training) -> None:
    training.code("train.py", "import os; open(os.environ['SM_MODEL_DIR'] + '/m', 'w')")
    done = training.train(f"--volume={training.root}:/elsewhere", SAGEMAKER_BASE_DIR="/elsewhere")
    assert done.code == 0, done.output
    assert "/elsewhere/code" in done.stderr and training.success


def test_nothing_of_ours_is_in_the_programs_python(training: Training) -> None:
    training.code("train.py", SHOW)
    found = seen(training)
    assert found["env"]["PYTHONPATH"] == "/opt/ml/code"
    assert not any("/opt/optml/deps" in path for path in found["path"])


@pytest.mark.one_variant
def test_cpus_are_those_of_the_container(training: Training) -> None:
    training.code("train.py", SHOW)
    assert seen(training, "--cpuset-cpus=0")["env"]["SM_NUM_CPUS"] == "1"
    assert seen(training, "--cpus=0.5")["env"]["SM_NUM_CPUS"] == "1"


def test_the_log_of_a_job(platform: Training) -> None:
    done = platform.train()
    (machine,) = [line for line in done.stderr.splitlines() if line.startswith("  machine  ")]
    assert done.stderr.splitlines() == [
        "optml: host 2 of 2, by resourceconfig.json",
        "optml: training environment",
        "  host        algo-2 (2 of 2), ml.m5.large",
        "  group       train",
        machine,
        "  network     eth0",
        "  program     main.py (script) in /opt/ml/code",
        "  python      /opt/venv/bin/python3",
        "  channels    train (File)",
        "  parameters  epochs=3 lr=3.10",
        "  platform    sagemaker_program=main.py",
        "optml: $ /opt/venv/bin/python3 main.py --epochs 3 --lr 3.10",
        "optml: Reporting training SUCCESS",
    ]


@pytest.mark.parametrize("name", ["parameter_server_enabled", "distributed_dataparallel_enabled"])
@pytest.mark.one_variant
def test_a_distribution_that_is_not_here_is_never_passed_over(training: Training, name: str) -> None:
    training.code("train.py", "print('never')")
    training.config("hyperparameters.json", {f"sagemaker_{name}": "true"})
    done = training.train()
    assert (done.code, done.stdout) == (1, "")
    assert training.failure.startswith(f"sagemaker_{name} is not supported; use sagemaker_torch_distributed")


@pytest.mark.one_variant
def test_env_is_printed(platform: Training) -> None:
    platform.code("main.py", "import subprocess; subprocess.run(['python', '-m', 'optml', 'env'])")
    printed = json.loads(platform.train().stdout)
    assert printed["hosts"] == ["algo-1", "algo-2"]
    assert printed["channels"]["train"]["content_type"] == "text/csv"


@pytest.mark.one_variant
def test_time_from_start_to_first_line_is_no_surprise(training: Training) -> None:
    """Absolute times are for the benchmark; this finds a wait that should not be there."""
    training.code("train.py", "import time; print(time.time())")
    training.config("resourceconfig.json", {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]})
    start = time.time()
    assert float(training.train("--network=none").stdout) - start < 20
