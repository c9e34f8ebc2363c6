"""The router of a multi-model server: a flask application in the slots of the only worker."""

from __future__ import annotations

import json
import os
import socket
import threading
from itertools import count, islice
from typing import Any

from flask import Flask, Response, jsonify, request

from ..admin import create_app
from ..errors import InferenceError
from ..worker import Worker
from .deployed import Deployed

_PAGE = 100  # models in one response
_SHARE = 7 / 8  # most of the router's slots for one model: more than the calls its process takes by default


def create_router(worker: Worker, forkserver: socket.socket, home: str) -> Flask:
    """The control plane, with the routes of a multi-model server."""
    models = Models(worker, forkserver, home)
    app = create_app(worker, models.names)

    @app.post("/models")
    def register() -> Any:
        try:
            body = json.loads(request.get_data())
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            body = {}
        name, url = body.get("model_name"), body.get("url")
        if not (isinstance(name, str) and isinstance(url, str) and name and url) or "/" in name:
            raise InferenceError('The body must be JSON like {"model_name": "a", "url": "/opt/ml/models/a"}.')
        models.register(name, url)
        return jsonify(status="Workers scaled")

    @app.get("/models")
    def listed() -> Any:
        limit = request.args.get("limit", str(_PAGE))
        is_number = limit.isascii() and limit.isdigit() and len(limit) < 20  # int() refuses 4,300 digits
        if not is_number or not 0 < int(limit) <= _PAGE:
            raise InferenceError(f"limit={limit} is not a number from 1 to {_PAGE}.")
        page, more = models.page(request.args.get("next_page_token", ""), int(limit))
        token = {"nextPageToken": page[-1].name} if more else {}
        return jsonify(models=[model.described() for model in page], **token)

    @app.get("/models/<name>")
    def described(name: str) -> Any:
        return jsonify(models.get(name).described())

    @app.delete("/models/<name>")
    def unregister(name: str) -> Any:
        models.unregister(name)
        return jsonify(status=f'Model "{name}" unregistered')

    @app.post("/models/<name>/invoke")
    def invoke(name: str) -> Response:
        return models.get(name).ask(worker.settings.timeout)

    return app


class Models:
    """All models by name."""

    def __init__(self, worker: Worker, forkserver: socket.socket, home: str) -> None:
        self._worker = worker
        self._forkserver = forkserver
        self._home = home
        self._models: dict[str, Deployed] = {}
        self._lock = threading.Lock()
        self._numbers = count(1)

    def get(self, name: str) -> Deployed:
        model = self._models.get(name)
        if model is None:
            raise InferenceError(f"Model not found: {name}", 404)
        return model

    def names(self) -> list[str]:
        return sorted(self._models.copy())

    def page(self, after: str, limit: int) -> tuple[list[Deployed], bool]:
        """At most `limit` models whose names follow `after`, and whether there are more."""
        found = (model for name, model in sorted(self._models.copy().items()) if name > after)
        page = list(islice(found, limit))
        return page, next(found, None) is not None

    def register(self, name: str, url: str) -> None:
        """Load a model. Raises InferenceError: 409 for a known name, 404 for no folder, or why it failed."""
        if not os.path.isdir(url):
            raise InferenceError(f"There is no folder {url}.", 404)
        with self._lock:
            if name in self._models:
                raise InferenceError(f"Model {name} is already registered.", 409)
            home = f"{self._home}/{next(self._numbers)}"
            most = int(_SHARE * self._worker.slots.count)
            model = Deployed(name, url.rstrip("/"), home, self.least_used_gpu(), self.start, most)
            self._models[name] = model
        try:
            model.load()
        except BaseException:
            with self._lock:
                if self._models.get(name) is model:
                    del self._models[name]
            model.unload()
            raise

    def unregister(self, name: str) -> None:
        """Remove a model and let its calls finish. Returns when its memory is free."""
        with self._lock:
            model = self.get(name)
            del self._models[name]
        model.unload()

    def least_used_gpu(self) -> int | None:
        used = [model.gpu for model in self._models.values()]
        return min(range(len(self._worker.settings.gpus)), key=used.count, default=None)

    def start(self, order: dict[str, Any], listener: int, reports: int) -> None:
        try:
            socket.send_fds(self._forkserver, [json.dumps(order).encode()], [listener, reports])
        except OSError as error:
            self._worker.alive = False  # without a forkserver the models are gone: start again
            raise InferenceError("The server is being replaced.", 503, {"Retry-After": "1"}) from error
