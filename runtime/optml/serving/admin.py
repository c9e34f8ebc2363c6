"""The control plane: every route but /ping and /invocations, as a flask application.

flask takes 190 ms to import, half as long as the whole server takes to start, and handles a fraction of the
loop's requests/s. So the first request for such a route imports it, on a thread beside the loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from .. import gpus, paths
from .errors import InferenceError
from .host import Host
from .http.response import failure
from .scoreboard import CALLS

_NOTHING_FROM_ELSEWHERE = (
    "default-src 'none'; img-src data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def create_app(worker: Host, models: Callable[[], list[str]] | None = None) -> Flask:
    """This worker's application, which reports on all workers. `models`: the names, if there are many."""
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # an unknown path is a 404, not a redirect
    app.register_error_handler(Exception, _failed)

    @app.get("/execution-parameters")
    def execution_parameters() -> Any:
        own = worker.model.execution_parameters() if worker.model else None
        return own or _execution_parameters(worker)

    if worker.settings.metrics:

        @app.get("/metrics")
        def metrics() -> Response:
            lines = _metrics(worker)
            return Response("".join(f"{line}\n" for line in lines), content_type=_PROMETHEUS)

    if worker.settings.page:

        @app.get("/")
        def page() -> Response:
            return Response(_text("page.html"), headers={"Content-Security-Policy": _NOTHING_FROM_ELSEWHERE})

        @app.get("/openapi.json")
        def openapi() -> Response:
            return Response(_text("openapi.json"), content_type="application/json")

        @app.get("/status")
        def status() -> Any:
            return jsonify(_status(worker, models() if models else None))

    return app


def _execution_parameters(worker: Host) -> dict[str, Any]:
    """How to send the records of a batch transform.

    A strategy that was set is returned unchanged; settings.py explains the default.
    """
    settings = worker.settings
    return {
        "MaxConcurrentTransforms": settings.max_concurrent_transforms
        or worker.app.planned_workers * settings.threads,
        "BatchStrategy": settings.batch_strategy,
        "MaxPayloadInMB": min(settings.max_payload >> 20, 100),
    }


def _text(name: str) -> str:
    """A file beside this one."""
    with open(f"{os.path.dirname(__file__)}/{name}", encoding="utf-8") as file:
        return file.read()


def _failed(error: Exception) -> Response:
    """Respond to an error with the same JSON as /invocations."""
    if isinstance(error, HTTPException):
        messages = {
            404: f"There is nothing at {request.path}.",
            405: f"{request.path} does not allow {request.method}.",
        }
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        code = error.code or 500
        error = InferenceError(messages.get(code) or error.description or error.name, code, headers)
    answer = failure(error, request.environ["optml.request_id"])
    return Response(answer.body, answer.status, answer.headers)


def _calls(worker: Host) -> tuple[int, int]:
    """How many calls run, and how many wait."""
    calls = [worker.scoreboard.cells[row, CALLS] for row in worker.scoreboard.rows]
    running = sum(min(count, worker.slots.count) for count in calls)
    return running, sum(calls) - running


def _status(worker: Host, models: list[str] | None) -> dict[str, Any]:
    """The data that the page shows."""
    scoreboard = worker.scoreboard
    running, queued = _calls(worker)
    planned = worker.app.planned_workers
    if models is None:
        model, routes = f"{paths.MODEL}, {worker.app.program}", ["/invocations"]
    else:
        model = ", ".join(models) or "none yet: load one with POST /models"
        routes = [f"/models/{quote(name)}/invoke" for name in models]
    return {
        "model": model,
        "paths": routes,
        "workers": scoreboard.ready(),
        "workersPlanned": planned,
        "restarts": scoreboard.restarts(),
        "slots": planned * worker.slots.count,
        "running": running,
        "queued": queued,
        "requests": scoreboard.statuses(),
        "recent": scoreboard.recent(),
    }


def _metrics(worker: Host) -> Iterator[str]:
    """The counters, in the text format of Prometheus."""
    scoreboard = worker.scoreboard
    running, queued = _calls(worker)
    count, queue, model = scoreboard.done()
    statuses = {f'{{status="{status}"}}': number for status, number in scoreboard.statuses().items()}
    yield from _metric("requests_total", "counter", "Requests answered, except /ping.", statuses)
    yield from _metric("calls_in_flight", "gauge", "Calls that run in a model.", running)
    yield from _metric("calls_queued", "gauge", "Calls that wait for a slot.", queued)
    for name, seconds in (("queue", queue), ("model", model)):
        samples = {"_sum": f"{seconds:.6f}", "_count": count}
        yield from _metric(f"{name}_seconds", "summary", f"Seconds that calls spent in the {name}.", samples)
    yield from _metric("workers_ready", "gauge", "Workers that can answer a call.", scoreboard.ready())
    yield from _metric(
        "worker_restarts_total", "counter", "Workers that replaced another.", scoreboard.restarts()
    )
    found = gpus.memory() if worker.settings.gpus else []
    for name, attribute in (("used", "used"), ("total", "memory")) if found else ():
        samples = {f'{{gpu="{gpu.uuid}"}}': getattr(gpu, attribute) for gpu in found}
        yield from _metric(f"gpu_memory_{name}_bytes", "gauge", f"Memory of each GPU, {name}.", samples)


def _metric(name: str, kind: str, help: str, samples: int | dict[str, Any]) -> Iterator[str]:
    """One metric: a number, or several by the suffix of the name."""
    yield f"# HELP optml_{name} {help}"
    yield f"# TYPE optml_{name} {kind}"
    for suffix, value in samples.items() if isinstance(samples, dict) else [("", samples)]:
        yield f"optml_{name}{suffix} {value}"
