"""Thousands of jobs that no platform would write: each runs, or is refused in one line that says why."""

from __future__ import annotations

import json
import marshal
import os
import re
import sys
from collections import Counter
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optml import paths
from optml.training import launchers, mpi, phases
from tests.unit.training.conftest import RUNTIME, Ml

SOURCE = "\n".join(path.read_text() for path in RUNTIME.parent.glob("training/*.py"))
PARAMETERS = sorted({*re.findall(r"sagemaker_[a-z0-9_]+", SOURCE)} - {"sagemaker_s3_output"})
VARIABLES = sorted(
    {*re.findall(r'"(SAGEMAKER_\w+|SM_STUDIO\w+|TRAINING_JOB_\w+|JOB_\w+|AWS_REGION)"', SOURCE)}
)
FILES = ("hyperparameters.json", "resourceconfig.json", "inputdataconfig.json", "checkpointconfig.json")
NAMES_ITS_CAUSE = re.compile(
    rf"{'|'.join(FILES)}|{'|'.join(VARIABLES + PARAMETERS)}|hyperparameter |submit directory"
)

TEXTS = st.text(max_size=8) | st.sampled_from(
    ["true", "1", "2", "a", "b", "train.py", "train", "/absent", "\0", "\ud800", "a\nb", "9" * 5000, "-1"]
    + ["1e999", "NaN", "[1, 2]", '{"a": [1]}', "[" * 20_000, "[" * 500 + "]" * 500, '"', "'", "²", "٣"]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def mostly(usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[Any]:
    """A valid value in nine cases of ten, because nothing after the first invalid one is reached."""
    return st.sampled_from([usual] * 9 + [other]).flatmap(lambda chosen: chosen)


HOST = mostly(st.sampled_from("abc"))
HOSTS = mostly(st.lists(HOST, min_size=1, max_size=3))
GROUP = mostly(st.sampled_from("xy"))
OBJECTS = {
    "hyperparameters.json": st.dictionaries(
        st.sampled_from(PARAMETERS) | TEXTS,
        mostly(st.sampled_from(["true", "false", "1", "train.py", "a", True, 2, ["x"]])),
        max_size=5,
    ),
    "resourceconfig.json": st.fixed_dictionaries(
        {},
        optional={
            "current_host": HOST,
            "hosts": HOSTS,
            "network_interface_name": mostly(st.just("eth0")),
            "current_instance_type": mostly(st.just("ml.m5.large")),
            "current_group_name": GROUP,
            "instance_groups": mostly(
                st.lists(
                    mostly(st.fixed_dictionaries({"instance_group_name": GROUP, "hosts": HOSTS})), max_size=2
                )
            ),
            "topology": VALUES,
        },
    ),
    "inputdataconfig.json": st.dictionaries(
        TEXTS, mostly(st.fixed_dictionaries({"TrainingInputMode": mostly(st.just("Pipe"))})), max_size=3
    ),
    "checkpointconfig.json": st.dictionaries(st.sampled_from(["LocalPath", "S3Uri"]), VALUES),
}
ENCODING = mostly(st.just("utf-8"), st.sampled_from(["utf-8-sig", "utf-16", "utf-32-be", "latin-1"]))


@st.composite
def files(draw: st.DrawFn, name: str) -> bytes:
    """The bytes of a file in input/config: mostly plausible JSON, sometimes damaged or arbitrary."""
    text = json.dumps(draw(mostly(OBJECTS[name])), ensure_ascii=draw(st.booleans()))
    twice = text.replace("{", "{" + text[1:-1] + ",", 1)
    text = draw(mostly(st.just(text), st.sampled_from([twice, text[:-1]]) | TEXTS))
    return text.encode(draw(ENCODING), "replace")


WRITTEN = {name: files(name) for name in FILES}
ENVIRONMENTS = st.dictionaries(
    st.sampled_from(VARIABLES),
    TEXTS.map(lambda text: os.fsdecode(text.encode(errors="replace")).replace("\0", "")),
    max_size=2,
)


class Started(BaseException):
    """Stands for the program: only whether the system can start it is checked."""


def _start(launch: launchers.Launch, argv: list[str], *_: object) -> None:
    for word in (*argv, *launch.environment, *launch.environment.values()):
        assert b"\0" not in os.fsencode(word)
    assert not any("=" in name for name in launch.environment)
    raise Started


class Facts(dict[str, Any]):
    """Stands for PID 1."""

    tell = dict.update

    def hand_over(self, links: dict[str, Any]) -> None:
        marshal.dumps(dict(self))

    def close(self) -> None:
        marshal.dumps(dict(self))


@pytest.mark.parametrize("jobs", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_every_job_runs_or_is_refused_in_one_line(ml: Ml, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    places = {name: place for name, place in vars(paths).items() if str(place).startswith(paths.BASE)}
    for name, place in places.items():
        monkeypatch.setattr(paths, name, place.replace(places["BASE"], str(ml.root)))
    ml.code("train.py", "")
    monkeypatch.setattr(phases, "_become", _start)
    monkeypatch.setattr(phases, "announce", lambda *_, **__: None)
    monkeypatch.setattr(launchers, "meet", lambda job: None)
    # Not every machine that runs this has what MPI needs.
    monkeypatch.setattr(mpi, "need", lambda command: command)
    monkeypatch.setattr(mpi, "rank", lambda program: program.argv)
    monkeypatch.setattr(mpi, "_agent", lambda hosts: ("agent", "orders"))
    config, nowhere = ml.root / "input/config", os.open("/dev/null", os.O_WRONLY)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    codes: Counter[int] = Counter()

    @settings(max_examples=jobs, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.fixed_dictionaries({}, optional=WRITTEN), ENVIRONMENTS)
    def job(written: dict[str, bytes], environment: dict[str, str]) -> None:
        for name in FILES:
            (config / name).unlink(missing_ok=True)
        for name, content in written.items():
            (config / name).write_bytes(content)
        variables = mock.patch.dict(os.environ, {**kept, **environment}, clear=True)
        with variables, mock.patch.dict(sys.modules):
            for name in [name for name in sys.modules if name.partition(".")[0] == "json"]:
                del sys.modules[name]  # as when the job is read: its C functions depend on it
            facts = Facts()
            with suppress(Started):
                phases.prepare([], facts, -1, nowhere)  # type: ignore[arg-type]
        reason = facts.get("failed", "")
        codes[int(bool(reason))] += 1
        if reason:
            assert "optml itself failed" not in reason
            assert "\n" not in reason
            assert NAMES_ITS_CAUSE.search(reason), reason

    job()
    print(f"exit codes: {codes}")
    assert codes.total() >= jobs
    assert codes[0] > jobs // 10 and codes[1] > jobs // 10
