"""The image trains."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container
from requests.exceptions import RequestException

from conformance.clause import Broken, NotChecked
from conformance.engine import Files, folder, remove, streamed
from conformance.target import Target, probe, start

INPUT = {
    "hyperparameters": {},
    "resourceconfig": {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"},
    "inputdataconfig": {"train": {"TrainingInputMode": "File"}},
}

NEVER_ENDED = -1


@dataclass(frozen=True)
class Job:
    """A training container that has exited, or why there is none."""

    code: int = NEVER_ENDED
    stdout: str = ""
    stderr: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # below /opt/ml/model and /opt/ml/output
    why: str = ""  # why it did not start or end

    @property
    def report(self) -> dict[str, Any] | None:
        """What the check's program recorded; None if it did not run."""
        text = self.files.get("model/conformance.json")
        return json.loads(text) if text else None

    @property
    def failure(self) -> str | None:
        text = self.files.get("output/failure")
        return None if text is None else text.decode(errors="replace")

    @property
    def end(self) -> str:
        """How it ended, for messages."""
        if self.why:
            return self.why
        last = (self.stdout + self.stderr).strip().splitlines()[-1:]
        return f"exit code {self.code}" + (
            f", and its last line is {last[0][:200]!r}" if last else ", without output"
        )


class Training(Target):
    @cached_property
    def plain_job(self) -> Job:
        """One that only records how it was started."""
        return self._first({})

    @cached_property
    def failed_job(self) -> Job:
        """One that ends with an exception whose traceback is longer than a failure reason may be."""
        return self.job({"raise": 60})

    def job(self, plan: dict[str, Any], **how: Any) -> Job:
        """Train with the check's program, which follows `plan`."""
        if self.plain_job.report is None:
            raise NotChecked(
                "the image does not run the program in /opt/ml/code that SAGEMAKER_PROGRAM names, "
                f"which this clause needs ({self.plain_job.end})"
            )
        return self._job(plan, **how) if plan or how else self.plain_job

    @cached_property
    def own_job(self) -> Job:
        """Train with the image's own code, and the code and data from the command line."""
        plain = self.plain_job
        if self.options.code is None and plain.report is not None:
            return plain
        if self.options.code is None and self.options.input is None and (plain.code == 0 or plain.why):
            return plain
        return self._first(None)

    def own(self, **how: Any) -> Job:
        return self._job(None, self.options.train_timeout, **how)

    def _first(self, plan: dict[str, Any] | None) -> Job:
        """A job on which others depend: if it does not start or end, it is not run again for each clause."""
        try:
            return self._job(plan, self.options.train_timeout)
        except Broken as error:
            return Job(why=str(error))

    def _job(self, plan: dict[str, Any] | None, timeout: float = 120, **how: Any) -> Job:
        with self.training(plan, **how) as container:
            return ended(container, timeout)

    @contextlib.contextmanager
    def training(
        self,
        plan: dict[str, Any] | None,
        *,
        parameters: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        files: Files | None = None,
        program: str = "conformance_probe.py",
        command: tuple[str, ...] = ("train",),
        **options: Any,
    ) -> Iterator[Container]:
        """A running training container."""
        variables = {"TRAINING_JOB_NAME": "conformance", **self.options.environment, **(environment or {})}
        tree: Files = {}
        if plan is None:
            for source, target in ((self.options.code, "code"), (self.options.input, "input")):
                tree |= folder(source, f"/opt/ml/{target}") if source else {}
            if self.options.input is None:
                tree |= _configuration({})
        else:
            variables |= {"SAGEMAKER_PROGRAM": program, "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/code"}
            hyperparameters = {
                "sagemaker_program": program,
                "sagemaker_submit_directory": "/opt/ml/code",
                **(parameters or {}),
            }
            tree |= _configuration({"hyperparameters": hyperparameters} | (config or {}))
            tree |= {
                "/opt/ml/code/conformance_probe.py": probe("train.py", plan),
                "/opt/ml/input/data/train": None,
                "/opt/ml/input/data/train/data.csv": "1,2\n",
            }
        tree |= files or {}
        container = self.engine.create(
            self.name,
            *command,
            files=tree,
            environment=variables,
            **{"hostname": "algo-1"} | options,  # toolkits wait until each host has an address
        )
        try:
            start(container)
            yield container
        finally:
            remove(container)


def _configuration(changes: dict[str, Any]) -> Files:
    """The files in /opt/ml/input/config; a value of None leaves one out."""
    return {
        f"/opt/ml/input/config/{name}.json": json.dumps(content)
        for name, content in (INPUT | changes).items()
        if content is not None
    }


def ended(container: Container, timeout: float = 120) -> Job:
    """Wait until it exits, and collect its output."""
    try:
        code = container.wait(timeout=timeout)["StatusCode"]
    except RequestException:
        raise Broken(f"the container is still running after {timeout:.0f} s") from None
    stdout, stderr = (
        container.logs(stdout=out, stderr=not out).decode(errors="replace") for out in (True, False)
    )
    files: dict[str, bytes] = {}
    for part in ("model", "output"):
        files |= _tree(container, f"/opt/ml/{part}")
    return Job(code, stdout, stderr, files)


def _tree(container: Container, path: str) -> dict[str, bytes]:
    """The small files below a folder of a container."""
    try:
        stream, _ = container.get_archive(path)
        with streamed(stream) as tar:
            small = (m for m in tar if m.isfile() and m.size < 10_000_000)
            return {m.name: tar.extractfile(m).read() for m in small}  # type: ignore[union-attr]
    except (NotFound, APIError):
        return {}
