"""This host's rank, from the variables of each scheduler: golden tables from the sources named in
schedulers.py, contradictions, and combinations."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from optml.report import UserError
from optml.training import cluster
from optml.training.launchers import launch, meet
from optml.training.nodelist import expand
from tests.unit.training.conftest import Ml, a_job, a_program

TRAINJOB = {
    "PET_NNODES": "4",
    "PET_NPROC_PER_NODE": "auto",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "job-node-0-0.job",
    "PET_MASTER_PORT": "29500",
    "JOB_COMPLETION_INDEX": "1",
}
PYTORCHJOB = {
    "PYTHONUNBUFFERED": "0",
    "MASTER_ADDR": "job-master-0",
    "MASTER_PORT": "23456",
    "WORLD_SIZE": "8",
    "RANK": "1",
    "PET_NPROC_PER_NODE": "2",
    "PET_NODE_RANK": "1",
    "PET_NNODES": "4",
}
ELASTIC = {
    "PET_RDZV_ENDPOINT": "job-worker-0:23456",
    "PET_RDZV_BACKEND": "c10d",
    "PET_NNODES": "1:4",
    "PET_MAX_RESTARTS": "3",
}
VOLCANO = {"MASTER_ADDR": "job-master-0.job", "MASTER_PORT": "23456", "WORLD_SIZE": "4", "RANK": "1"}
JAX = {
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "1",
    "JAX_COORDINATOR_ADDRESS": "job-node-0-0.job:6666",
}
XGBOOST = {
    "DMLC_TRACKER_URI": "job-node-0-0.job",
    "DMLC_TRACKER_PORT": "29500",
    "DMLC_TASK_ID": "1",
    "DMLC_NUM_WORKER": "4",
}
BATCH = {
    "AWS_BATCH_JOB_NUM_NODES": "4",
    "AWS_BATCH_JOB_NODE_INDEX": "1",
    "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0",
    "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.1",
}
SKYPILOT = {
    "SKYPILOT_NUM_NODES": "4",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2\n10.0.0.3\n10.0.0.4",
    "SKYPILOT_NUM_GPUS_PER_NODE": "0",
}
SLURM = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_NNODES": "4",
    "SLURM_JOB_NUM_NODES": "4",
    "SLURM_NTASKS": "4",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "gpu[01-03,7]",
}
MPIRUN = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
TASKS = {**SLURM, "SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}

ALL = {
    "PET_NNODES": TRAINJOB,
    "WORLD_SIZE": VOLCANO,
    "JAX_NUM_PROCESSES": JAX,
    "DMLC_NUM_WORKER": XGBOOST,
    "AWS Batch": BATCH,
    "SkyPilot": SKYPILOT,
    "Slurm": SLURM,
    "mpirun": MPIRUN,
}


def find(environ: dict[str, str], gpus: int = 0, **resources: Any) -> cluster.Cluster:
    found = cluster.find(resources, environ, gpus)
    assert found
    return found


@pytest.mark.parametrize(
    ("scheduler", "environ", "leader", "port"),
    [
        ("PET_NNODES", TRAINJOB, "job-node-0-0.job", "29500"),
        ("PET_NNODES", PYTORCHJOB, "job-master-0", "23456"),
        (
            "PET_NNODES",
            {**PYTORCHJOB, "PET_NPROC_PER_NODE": "auto", "WORLD_SIZE": "4"},
            "job-master-0",
            "23456",
        ),
        ("WORLD_SIZE", VOLCANO, "job-master-0.job", "23456"),
        ("JAX_NUM_PROCESSES", JAX, "job-node-0-0.job", "7777"),
        ("DMLC_NUM_WORKER", XGBOOST, "job-node-0-0.job", "7777"),
        ("AWS Batch", BATCH, "10.0.0.1", "7777"),
        ("SkyPilot", SKYPILOT, "10.0.0.1", "7777"),
        ("Slurm", SLURM, "gpu01", "24567"),
        ("Slurm", TASKS, "gpu01", "24567"),
        ("mpirun", MPIRUN, "node-0.invalid", "7777"),
    ],
)
def test_each_scheduler_gives_the_rank_of_this_host(
    scheduler: str, environ: dict[str, str], leader: str, port: str
) -> None:
    found = find(environ)
    assert str(found) == f"host 2 of 4, by {scheduler}"
    assert (found.hosts[0], found.port, len(set(found.hosts))) == (leader, port, 4)


def test_without_variables_there_is_no_cluster() -> None:
    assert cluster.find({}, {"PATH": "/bin", "JOB_COMPLETION_INDEX": "3"}, 0) is None


def test_elastic_hosts_have_a_minimum_and_a_maximum() -> None:
    assert str(find(ELASTIC)) == "one of 1 to 4 hosts, by PET_NNODES"
    assert find(ELASTIC).rank == 1
    assert find({**ELASTIC, "PET_RDZV_ENDPOINT": f"{os.uname().nodename}:1"}).rank == 0


def test_elastic_hosts_are_at_most_those_of_resourceconfig() -> None:
    assert find(ELASTIC, hosts=["a"]).rank == 0
    words = "host 4 of 2, by resourceconfig.json, but one of 1 to 4 hosts, by PET_NNODES"
    with pytest.raises(UserError, match=words):
        find({**ELASTIC, "PET_NODE_RANK": "3"}, hosts=["a", "b"])


def test_the_main_node_of_batch_leads_and_finds_its_own_address() -> None:
    main = {
        "AWS_BATCH_JOB_NUM_NODES": "4",
        "AWS_BATCH_JOB_NODE_INDEX": "2",
        "AWS_BATCH_JOB_MAIN_NODE_INDEX": "2",
    }
    assert find(main).rank == 0
    assert find(main).hosts[0] not in ("", "localhost", "127.0.0.1")
    assert find({**BATCH, "AWS_BATCH_JOB_MAIN_NODE_INDEX": "2"}).rank == 3


def test_xgboost_counts_a_worker_for_each_gpu() -> None:
    assert str(find({**XGBOOST, "DMLC_NUM_WORKER": "8"}, gpus=4)).startswith("host 2 of 2")


@pytest.mark.parametrize(
    ("names", "nodes"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("gpu[01-03,7]", ["gpu01", "gpu02", "gpu03", "gpu7"]),
        ("r[1-2]n[08-10],x", ["r1n08", "r1n09", "r1n10", "r2n08", "r2n09", "r2n10", "x"]),
        ("a[1-3]-ib", ["a1-ib", "a2-ib", "a3-ib"]),
        ("n[1-999999999]", [f"n{number}" for number in range(1, 10)]),
    ],
)
def test_compressed_lists_of_nodes(names: str, nodes: list[str]) -> None:
    assert expand(names, 9) == nodes


@pytest.mark.parametrize("environ", ALL.values(), ids=ALL)
def test_resourceconfig_takes_precedence_and_the_scheduler_gives_the_rank(environ: dict[str, str]) -> None:
    found = find(
        environ, hosts=["a", "b", "c", "d"], **({"current_host": "b"} if environ in (VOLCANO, MPIRUN) else {})
    )
    assert (str(found), found.hosts[found.rank]) == ("host 2 of 4, by resourceconfig.json", "b")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {**TRAINJOB, **BATCH, "AWS_BATCH_JOB_NUM_NODES": "2"},
            ["2 of 4, by PET_NNODES", "2 of 2, by AWS Batch"],
        ),
        ({**BATCH, **SKYPILOT, "SKYPILOT_NODE_RANK": "2"}, ["2 of 4, by AWS Batch", "3 of 4, by SkyPilot"]),
        ({**TRAINJOB, **VOLCANO, "WORLD_SIZE": "6"}, ["2 of 4, by PET_NNODES", "2 of 6, by WORLD_SIZE"]),
        ({**TASKS, **VOLCANO}, ["by Slurm", "by WORLD_SIZE"]),
        ({**SLURM, "SLURM_NTASKS": "3"}, ["SLURM_NTASKS is 3", "SLURM_NNODES is 4"]),
        ({**SLURM, "SLURM_JOB_NODELIST": "gpu[1-3]"}, ["SLURM_NNODES is 4", "gpu1, gpu2, gpu3"]),
        ({**SLURM, "SLURM_JOB_NODELIST": "gpu[1-"}, ["gpu[1-"]),
        ({**BATCH, "AWS_BATCH_JOB_NODE_INDEX": "4"}, ["AWS_BATCH_JOB_NODE_INDEX is 4", "NUM_NODES is 4"]),
        ({**BATCH, "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": ""}, ["PRIVATE_IPV4_ADDRESS is missing"]),
        ({**TRAINJOB, "PET_NODE_RANK": ""}, ["PET_NNODES is 4", "PET_NODE_RANK is missing"]),
        ({"PET_NODE_RANK": "1"}, ["PET_NODE_RANK is 1", "PET_NNODES is missing"]),
        ({**TRAINJOB, "PET_STANDALONE": "1"}, ["PET_NNODES is 4", "PET_STANDALONE"]),
        ({**TRAINJOB, "PET_NNODES": "many"}, ["PET_NNODES is 'many'"]),
        ({**ELASTIC, "PET_NNODES": "4:2"}, ["PET_NNODES is '4:2'"]),
        ({"WORLD_SIZE": "4"}, ["WORLD_SIZE is 4", "RANK is missing"]),
        ({**SKYPILOT, "SKYPILOT_NODE_IPS": "10.0.0.1"}, ["SKYPILOT_NUM_NODES is 4", "10.0.0.1"]),
    ],
)
def test_a_contradiction_is_one_line_that_names_both(environ: dict[str, str], words: list[str]) -> None:
    with pytest.raises(UserError) as failed:
        cluster.find({}, environ, 0)
    assert "\n" not in str(failed.value)
    for word in words:
        assert word in str(failed.value)


def test_mpirun_on_the_only_host_of_a_job_takes_precedence() -> None:
    job = {"SLURM_NNODES": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_NODEID": "0"}
    found = cluster.find({}, {**ALL["mpirun"], **job}, 0)
    assert found == cluster.find({}, ALL["mpirun"], 0)


@pytest.mark.parametrize("environ", ALL.values(), ids=ALL)
def test_a_single_host_in_resourceconfig_does_not_hide_the_others(environ: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"host 1 of 1, by resourceconfig.json, but host 2 of 4"):
        cluster.find({"hosts": ["algo-1"], "current_host": "algo-1"}, environ, 0)


def test_without_a_rank_no_host_assumes_that_it_is_the_first() -> None:
    with pytest.raises(UserError, match="2 hosts, but neither current_host in it nor JOB_COMPLETION_INDEX"):
        cluster.find({"hosts": ["a", "b"]}, {}, 0)
    assert find({"JOB_COMPLETION_INDEX": "1"}, hosts=["a", "b"]).rank == 1
    assert find({}, hosts=["a"]).rank == 0


@pytest.mark.parametrize("rank", range(4))
def test_ranks_of_mpirun_must_agree_with_the_hosts(rank: int) -> None:
    ranks = words_of("mpirun", 4, rank)
    for resources, environ, claim in (
        ({}, words_of("Slurm", 2, 0), "Slurm"),
        ({"hosts": ["a", "b"], "current_host": "a"}, {}, "resourceconfig.json"),
        ({}, words_of("WORLD_SIZE", 2, 0), "WORLD_SIZE"),
    ):
        with pytest.raises(UserError, match=f"host 1 of 2, by {claim}, but host {rank + 1} of 4, by mpirun"):
            cluster.find(resources, {**environ, **ranks}, 0)
    assert find({**words_of("Slurm", 4, rank), **ranks}).scheduler == "Slurm"
    assert find({**TASKS, "SLURM_NTASKS": "8", **words_of("mpirun", 8, 3)}).process["RANK"] == "3"


@pytest.mark.parametrize(
    ("environ", "sizes", "contradiction"),
    [
        (SLURM, ["4", "8"], "6"),
        (SLURM, ["4"], "1"),
        (TASKS, ["8"], "4"),
        (BATCH, ["4", "8"], "2"),
        (MPIRUN, ["4"], "8"),
        ({**SLURM, "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "a"}, ["4"], "2"),
    ],
    ids=["multiple", "less", "processes", "Batch", "mpirun", "tasks of one node"],
)
def test_world_size_without_rank_is_compared_with_the_scheduler(
    environ: dict[str, str], sizes: list[str], contradiction: str
) -> None:
    for size in sizes:
        assert find({**environ, "WORLD_SIZE": size}) == find(environ)
    with pytest.raises(UserError, match=f"of {contradiction}, by WORLD_SIZE"):
        find({**environ, "WORLD_SIZE": contradiction})


SIZES = {
    "PET_NNODES": "PET_NNODES",
    "WORLD_SIZE": "WORLD_SIZE",
    "JAX_NUM_PROCESSES": "JAX_NUM_PROCESSES",
    "AWS_BATCH_JOB_NUM_NODES": "AWS Batch",
    "SKYPILOT_NUM_NODES": "SkyPilot",
    "SLURM_NNODES": "Slurm",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
}
VARIABLES = sorted({name for environ in ALL.values() for name in environ})
VALUES = st.sampled_from(["", "0", "1", "2", "3", "4", "x", "a,b", "n[1-2]", "10.0.0.1\n10.0.0.2", "1:4"])
MIXTURES = st.dictionaries(st.sampled_from(VARIABLES), VALUES)
WHOLE = st.lists(st.sampled_from(list(ALL.values()))).map(
    lambda parts: {name: value for part in parts for name, value in part.items()}
)


@given(WHOLE, MIXTURES, st.sampled_from([{}, {"hosts": ["a"]}, {"hosts": ["a", "b"]}]))
def test_no_combination_trains_alone_if_a_source_names_more_hosts(
    whole: dict[str, str], changes: dict[str, str], resources: dict[str, Any]
) -> None:
    environ = {**whole, **changes}
    try:
        found = cluster.find(resources, environ, 0)
    except UserError as error:
        assert "\n" not in str(error)
        return
    hosts = len(found.hosts) if found else 1
    if hosts == 1 and not (found and found.of_processes):
        assert all(environ.get(name, "") in ("", "0", "1") for name in SIZES), (environ, found)
        each = ("PET_NODE_RANK", "RANK", "JAX_PROCESS_ID", "AWS_BATCH_JOB_NODE_INDEX", "SLURM_NODEID")
        if environ.get("WORLD_SIZE") != environ.get("PET_NPROC_PER_NODE"):
            assert all(environ.get(name, "") in ("", "0") for name in each), (environ, found)


def words_of(scheduler: str, size: int, rank: int) -> dict[str, str]:
    """The variables of the golden table, for another size and rank."""
    names = [f"10.0.0.{number}" for number in range(1, size + 1)]
    changes = {
        "PET_NNODES": {"PET_NNODES": size, "PET_NODE_RANK": rank},
        "WORLD_SIZE": {"WORLD_SIZE": size, "RANK": rank},
        "JAX_NUM_PROCESSES": {"JAX_NUM_PROCESSES": size, "JAX_PROCESS_ID": rank},
        "DMLC_NUM_WORKER": {"DMLC_NUM_WORKER": size, "DMLC_TASK_ID": rank},
        "AWS Batch": {"AWS_BATCH_JOB_NUM_NODES": size, "AWS_BATCH_JOB_NODE_INDEX": rank},
        "SkyPilot": {
            "SKYPILOT_NUM_NODES": size,
            "SKYPILOT_NODE_RANK": rank,
            "SKYPILOT_NODE_IPS": "\n".join(names),
        },
        "Slurm": {
            "SLURM_NNODES": size,
            "SLURM_NTASKS": size,
            "SLURM_NODEID": rank,
            "SLURM_PROCID": rank,
            "SLURM_JOB_NODELIST": f"gpu[1-{size}]",
        },
        "mpirun": {"OMPI_COMM_WORLD_SIZE": size, "OMPI_COMM_WORLD_RANK": rank},
    }
    return {**ALL[scheduler], **{name: str(value) for name, value in changes[scheduler].items()}}


PLACES = st.integers(1, 6).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


@given(st.sets(st.sampled_from(list(ALL)), min_size=1), PLACES)
def test_schedulers_that_agree_give_the_right_place(schedulers: set[str], place: tuple[int, int]) -> None:
    environ = {name: word for each in schedulers for name, word in words_of(each, *place).items()}
    found = find(environ)
    assert (len(found.hosts), found.rank) == place


# The others may disagree: several processes on a host, or mpirun within a host's job.
@given(
    st.lists(st.sampled_from([*ALL][2:-1] + ["PET_NNODES"]), min_size=2, max_size=2, unique=True),
    PLACES,
    PLACES,
)
def test_two_schedulers_that_disagree_are_one_line(
    schedulers: list[str], place: tuple[int, int], other: tuple[int, int]
) -> None:
    assume(place != other)
    first, second = schedulers
    with pytest.raises(UserError) as failed:
        find({**words_of(first, *place), **words_of(second, *other)})
    assert "\n" not in str(failed.value)
    for scheduler in schedulers:
        assert scheduler in str(failed.value)


# What is started


def argv(environ: dict[str, str], **fields: Any) -> list[str]:
    place = find(environ)
    job = a_job(hosts=place.hosts, current_host=place.hosts[place.rank], cluster=place, **fields)
    assert meet(job) is None
    variables = {"MASTER_ADDR": place.hosts[0], "MASTER_PORT": place.port, **environ}
    return launch(job, a_program(), [], variables).argv


TORCH = {"framework_parameters": {"sagemaker_torch_distributed_enabled": True}}
RUN = ["/venv/python3", "-m", "torch.distributed.run"]


@pytest.mark.parametrize("fields", [{}, TORCH])
def test_torchrun_gets_no_option_that_pet_sets(fields: dict[str, Any]) -> None:
    assert argv(TRAINJOB, **fields) == [*RUN, "train.py"]
    assert argv(ELASTIC, **fields) == [*RUN, "--nproc-per-node=1", "train.py"]
    assert argv(PYTORCHJOB, **fields) == [
        *[*RUN, "--master-addr=job-master-0", "--master-port=23456"],
        "train.py",
    ]


@pytest.mark.parametrize("scheduler", ["WORLD_SIZE", "AWS Batch", "SkyPilot", "Slurm"])
def test_torchrun_runs_if_the_job_asks_for_it(scheduler: str) -> None:
    environ = ALL[scheduler]
    place = find(environ)
    assert argv(environ) == ["/venv/python3", "train.py"]
    assert argv(environ, **TORCH) == [
        *[*RUN, "--nnodes=4", "--nproc-per-node=1", "--node-rank=1"],
        *[f"--master-addr={place.hosts[0]}", f"--master-port={place.port}", "train.py"],
    ]


def test_a_process_that_slurm_starts_gets_its_rank_and_no_launcher() -> None:
    assert argv(TASKS, **TORCH) == ["/venv/python3", "train.py"]
    place = find(TASKS)
    job = a_job(hosts=place.hosts, current_host=place.hosts[place.rank], cluster=place)
    found = launch(job, a_program(), [], {"LOCAL_RANK": "7"}).environment
    assert found == {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "7"}


def test_hyperpodrun_replaces_torchrun(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = tmp_path / "hyperpodrun"
    agent.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert argv(TRAINJOB) == [str(agent), "train.py"]
    operator = {"NNODES": "4", "NPROC_PER_NODE": "8"}
    with pytest.raises(UserError, match="NNODES is 4, but PET_NNODES is missing"):
        cluster.find({}, operator, 0)
    own = {"PET_NNODES": "4", "PET_NPROC_PER_NODE": "8", "PET_RDZV_BACKEND": "hyperpod"}
    assert argv({**operator, **own}) == [str(agent), "train.py"]


def test_nnodes_means_nothing_without_hyperpodrun() -> None:
    assert cluster.find({}, {"NNODES": "4"}, 0) is None


@pytest.mark.parametrize("fields", [TORCH, {"framework_parameters": {"sagemaker_mpi_enabled": True}}])
def test_an_indexed_pod_without_hosts_does_not_train_alone(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="JOB_COMPLETION_INDEX is 0, but nothing says how many"):
        launch(a_job(**fields), a_program(), [], {"JOB_COMPLETION_INDEX": "0"})


def test_an_index_that_is_not_a_number_cannot_break_the_line() -> None:
    with pytest.raises(UserError, match=r"JOB_COMPLETION_INDEX is 'a\\nb', but nothing says how many"):
        launch(a_job(**TORCH), a_program(), [], {"JOB_COMPLETION_INDEX": "a\nb"})


def test_mpirun_needs_names() -> None:
    with pytest.raises(UserError, match=r"does not give mpirun the hosts' names.* resourceconfig.json"):
        argv(BATCH, framework_parameters={"sagemaker_mpi_enabled": True})


# End to end


def test_the_program_sees_what_train_found(ml: Ml) -> None:
    ml.code(
        "train.py",
        "import os, sys; sys.path.insert(0, os.environ['LIB']); os.environ.update(RANK='5', WORLD_SIZE='9')\n"
        "import optml; job = optml.job(); print(job.rank, len(job.hosts), os.environ['MASTER_ADDR'],"
        " os.environ['SM_HOST_COUNT'], os.environ['SM_CURRENT_HOST_RANK'])",
    )
    lib = os.path.dirname(os.path.dirname(os.path.dirname(cluster.__file__)))
    done = ml.train(LIB=lib, **BATCH)
    assert (done.returncode, done.stdout) == (0, "1 4 10.0.0.1 4 1\n"), done.stderr
    assert "optml: host 2 of 4, by AWS Batch\n" in done.stderr


def test_a_contradiction_ends_the_job(ml: Ml) -> None:
    ml.code("train.py", "print('trains')")
    done = ml.train(**{**BATCH, **SKYPILOT, "SKYPILOT_NODE_RANK": "2"})
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        ml.failure == "host 2 of 4, by AWS Batch, but host 3 of 4, by SkyPilot; remove the one that is wrong"
    )
