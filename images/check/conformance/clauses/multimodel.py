"""Many models in one container, which the platform loads and unloads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from conformance.clause import NotChecked, clause, expect
from conformance.clauses.image import CAPABILITIES
from conformance.engine import Files
from conformance.server import Answer, Server
from conformance.sources import MULTI_MODEL
from conformance.subject import Subject
from conformance.target import probe

LABEL = f"{CAPABILITIES}multi-models"


class Models:
    """The platform's calls."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def load(self, name: str) -> Answer:
        body = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}/model"})
        return self.server.ask("POST", "/models", body.encode(), {"Content-Type": "application/json"})

    def unload(self, name: str) -> Answer:
        return self.server.ask("DELETE", f"/models/{name}")

    def invoke(self, name: str) -> Answer:
        return self.server.ask(
            "POST", f"/models/{name}/invoke", b'{"hello": 1}', {"Content-Type": "application/json"}
        )

    def listed(self) -> list[Any]:
        answer = self.server.ask("GET", "/models")
        expect(answer.status == 200, f"GET /models answers {answer}")
        found: list[Any] = json.loads(answer.body)["models"]
        return [model["modelName"] for model in found]


@contextlib.contextmanager
def models(subject: Subject) -> Iterator[Models]:
    """A multi-model server, shared by all clauses; each uses other model names."""
    if subject.labels.get(LABEL) != "true":
        raise NotChecked(f"the image does not declare it: there is no label {LABEL}=true")
    subject.needs_handlers()
    server = subject.remembered.get("models")
    if server is None or not server.runs:
        files: Files = {"/opt/ml/models": None}
        for name in ("a", "b", "c", "d"):
            folders = [f"/opt/ml/models/{name}{below}" for below in ("", "/model", "/model/code")]
            files |= dict.fromkeys(folders)
            files[f"{folders[-1]}/inference.py"] = probe("inference.py", {"name": name})
        variables = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_PROGRAM": "inference.py"}
        server = subject.keep(subject.serving(environment=variables, files=files, plain=True))
        subject.remembered["models"] = server
    server.wait_ready(subject.options.start_timeout)
    yield Models(server)


@clause(
    "M-LOAD-1",
    "required",
    MULTI_MODEL,
    "POST /models loads a model, and POST /models/NAME/invoke calls it",
    "Answer 200 once the model is loaded from the folder in `url`.",
    verb="serve",
)
def load(subject: Subject) -> None:
    with models(subject) as api:
        answer = api.load("a")
        expect(answer.status == 200, f"POST /models answers {answer}")
        answer = api.invoke("a")
        expect(answer.status == 200, f"invoke answers {answer}")
        expect(json.loads(answer.body)["conformance"] == "a", f"another model answers: {answer}")


@clause(
    "M-LOAD-2",
    "required",
    MULTI_MODEL,
    "Loading a model that is already loaded is answered with 409",
    "Answer 409, and keep the loaded model.",
    verb="serve",
)
def twice(subject: Subject) -> None:
    with models(subject) as api:
        api.load("b")
        answer = api.load("b")
    expect(answer.status == 409, f"the second POST /models answers {answer}")


@clause(
    "M-LIST-1",
    "required",
    MULTI_MODEL,
    "GET /models lists the loaded models",
    'Answer {"models": [{"modelName": …, "modelUrl": …}]}.',
    verb="serve",
)
def listing(subject: Subject) -> None:
    with models(subject) as api:
        api.load("c")
        found = api.listed()
    expect("c" in found, f"model c is loaded, and the list is {found}")


@clause(
    "M-INVOKE-1",
    "required",
    MULTI_MODEL,
    "A call to a model that is not loaded is answered with 404",
    "Answer 404: the platform then loads the model and calls again.",
    verb="serve",
)
def unknown(subject: Subject) -> None:
    with models(subject) as api:
        answer = api.invoke("no-such-model")
    expect(answer.status == 404, f"invoke answers {answer}")


@clause(
    "M-UNLOAD-1",
    "required",
    MULTI_MODEL,
    "DELETE /models/NAME unloads a model",
    "Answer 200 once its memory is free, and 404 to later calls.",
    verb="serve",
)
def unload(subject: Subject) -> None:
    with models(subject) as api:
        api.load("d")
        answer = api.unload("d")
        expect(answer.status == 200, f"DELETE answers {answer}")
        expect("d" not in api.listed(), "the model is still listed")
        answer = api.invoke("d")
    expect(answer.status >= 400, f"a call to it is still answered: {answer}")
