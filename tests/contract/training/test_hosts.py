"""Several hosts of one job: each learns what became of the others, whatever engine they run.

A stand-in for torchrun is among the user's code: it starts the program on each host.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.docker import run
from tests.support.training import Training

pytestmark = [pytest.mark.image("cpu-train"), pytest.mark.one_variant]

ENGINE = (
    "import os, sys; os.execv(sys.executable, ['python', '-u', *(a for a in sys.argv[1:] if a[:2] != '--')])"
)
HOSTS = ("algo-1", "algo-2", "algo-3")


class Hosts(Cluster):
    """Three hosts, each with its code in an /opt/ml of its own."""

    def prepare(self, ml: Path) -> None:
        for host in HOSTS:
            shutil.copytree(ml, self.root / host)
            training = self.hosts[host] = Training(self.image, self.root / host)
            training.config("hyperparameters.json", {"sagemaker_torch_distributed_enabled": "true"})
            training.config("resourceconfig.json", {"current_host": host, "hosts": list(HOSTS)})
            for module in ("torch/__init__", "torch/distributed/__init__", "torch/distributed/run"):
                training.code(f"{module}.py", ENGINE if module.endswith("run") else "")

    def start(self, *hosts: str) -> None:
        for host in hosts or HOSTS:
            self.run(host, *self.hosts[host].options())

    def code(self, text: str) -> None:
        """The same program for all hosts."""
        for training in self.hosts.values():
            training.code("train.py", text)


@pytest.fixture
def cluster(image: str, ml: Path, network: str) -> Iterator[Hosts]:
    cluster = Hosts(image, ml.parent, network, bound=100)
    cluster.prepare(ml)
    cluster.code("import time; print('running', flush=True); time.sleep(600)")
    yield cluster
    cluster.close()


def test_all_succeed_though_they_start_one_after_the_other(cluster: Hosts) -> None:
    cluster.code("import os; print(os.environ['SM_CURRENT_HOST'], os.environ['MASTER_ADDR'])")
    for host in reversed(HOSTS):
        cluster.start(host)
        time.sleep(0.5)
    cluster.assert_success()
    assert cluster.containers["algo-3"].log().stdout == "algo-3 algo-1\n"
    assert "--nnodes=3 --nproc-per-node=1 --node-rank=2" in cluster.containers["algo-3"].log().stderr


@pytest.mark.parametrize("victim", HOSTS[:2])
def test_a_host_that_is_killed_ends_the_others_and_is_named(cluster: Hosts, victim: str) -> None:
    cluster.start()
    cluster.wait_for("running")
    cluster.containers[victim].kill("KILL")
    assert 0 not in cluster.codes().values()
    for host in set(HOSTS) - {victim}:
        assert cluster.hosts[host].failure.startswith(f"host {victim} vanished")


def test_a_host_that_is_cut_from_the_network_ends_them_all(cluster: Hosts) -> None:
    cluster.start()
    cluster.wait_for("running")
    cluster.cut_off("algo-3")
    assert 0 not in cluster.codes().values()
    for host in ("algo-1", "algo-2"):
        assert cluster.hosts[host].failure.startswith("host algo-3 vanished")
    assert cluster.hosts["algo-3"].failure.startswith("host algo-1 vanished")


def test_a_program_that_fails_on_one_host_is_told_on_the_others(cluster: Hosts) -> None:
    cluster.hosts["algo-2"].code("train.py", "raise SystemExit(42)")
    cluster.start()
    codes = cluster.codes()
    assert codes["algo-2"] == 42 and 0 not in codes.values()
    for host in ("algo-1", "algo-3"):
        assert cluster.hosts[host].failure.startswith("host algo-2 ended with code 42")


def test_a_program_that_fails_by_itself_is_not_cut_short(cluster: Hosts) -> None:
    cluster.code("import time; time.sleep(2); raise ValueError('my own words')")
    cluster.hosts["algo-2"].code("train.py", "raise SystemExit(42)")
    cluster.start()
    assert list(cluster.codes().values()) == [1, 42, 1]
    assert "ValueError: my own words" in cluster.hosts["algo-1"].failure


@pytest.mark.parametrize("victim", HOSTS[:2])
@pytest.mark.parametrize("trouble", ["no code", "a bad hyperparameter", "a bad file of hyperparameters"])
def test_a_host_that_fails_before_its_program_starts_is_named_at_once(
    cluster: Hosts, victim: str, trouble: str
) -> None:
    failing = cluster.hosts[victim]
    if trouble == "no code":
        shutil.rmtree(failing.root / "code")
    elif trouble == "a bad hyperparameter":
        on = {"sagemaker_torch_distributed_enabled": "true"}
        failing.config("hyperparameters.json", {**on, "name": "half a pair: \ud800"})
    else:
        failing.config("hyperparameters.json", "no JSON")
    start = time.monotonic()
    cluster.start()
    assert list(cluster.codes().values()) == [1, 1, 1]
    assert time.monotonic() - start < 60
    for host in set(HOSTS) - {victim}:
        assert cluster.hosts[host].failure.startswith(
            f"host {victim} ended with code 1 before its program started"
        )
    assert "host" not in failing.failure


def test_a_host_that_fails_is_heard_by_those_that_come_late(cluster: Hosts) -> None:
    shutil.rmtree(cluster.hosts["algo-2"].root / "code")
    cluster.start("algo-2", "algo-3")
    cluster.containers["algo-2"].wait_for_log("Reporting training FAILURE")
    cluster.start("algo-1")
    assert list(cluster.codes().values()) == [1, 1, 1]
    for host in ("algo-1", "algo-3"):
        assert cluster.hosts[host].failure.startswith("host algo-2 ended with code 1")


def test_a_host_that_is_stopped_before_its_program_starts_is_named(cluster: Hosts) -> None:
    cluster.start("algo-1", "algo-3")
    cluster.containers["algo-3"].wait_for_log("training environment")
    time.sleep(1)
    cluster.containers["algo-3"].kill("TERM")
    assert cluster.containers["algo-3"].wait() == 143
    cluster.start("algo-2")
    assert list(cluster.codes().values()) == [1, 1, 143]
    for host in ("algo-1", "algo-2"):
        assert cluster.hosts[host].failure.startswith("host algo-3 ended with code 143")


def test_studio_waits_for_no_names(cluster: Hosts) -> None:
    cluster.code("print('running')")
    options = cluster.hosts["algo-2"].options(f"--network={cluster.network}", SM_STUDIO_LOCAL_MODE="true")
    done = run(cluster.hosts["algo-2"].image, "train", options=options, timeout=60)
    assert done.stdout == "running\n", done.output


def test_no_one_else_is_listened_to(cluster: Hosts) -> None:
    """A stranger who speaks for a host that has no address yet is neither admitted nor believed."""
    cluster.start("algo-1", "algo-2")
    cluster.containers["algo-1"].wait_for_log("training environment")
    intruder = (
        "import socket; s = socket.create_connection(('algo-1', 7778)); s.recv(99)\n"
        "s.sendall(b'algo-3 ' + b'0' * 32 + b' ' + b'0' * 64 + b' algo-3 1\\n'); print(s.recv(9))"
    )
    assert cluster.containers["algo-2"].exec("python3", "-c", intruder).stdout == "b''\n"
    cluster.containers["algo-1"].wait_for_log("is not of this job")
    cluster.start("algo-3")
    cluster.wait_for("running")
