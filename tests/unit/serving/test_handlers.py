"""The user's handlers, their defaults and their signatures."""

from __future__ import annotations

import asyncio
import os
import threading
import types
from pathlib import Path
from typing import Any, cast

import flask
import pytest
from werkzeug.exceptions import Gone, HTTPException

from optml import paths
from optml.report import UserError
from optml.serving import InferenceError
from optml.serving.http.payload import Payload
from optml.serving.http.response import failure
from optml.serving.model import codecs
from optml.serving.model.context import Context, Headers
from optml.serving.model.handlers import Model
from optml.serving.settings import Settings


def model(**handlers: Any) -> Model:
    module = types.ModuleType("inference")
    module.__file__ = "inference.py"
    handlers.setdefault("model_fn", lambda model_dir: "model")
    vars(module).update(handlers)
    return Model(module, Settings({}), None)


def answer(of: Model, body: bytes = b"[1]", content_type: str = "application/json", accept: str = "") -> Any:
    payload = Payload()
    payload.write(body)
    context = Context([("X-AMZN-SAGEMAKER-SESSION-ID", "s")], "id", 3)
    return of.answer(payload, content_type, accept, context)


@pytest.mark.parametrize("handler", ["output_fn", "transform_fn"])
def test_an_object_of_a_handler_goes_in_the_best_type_that_can_carry_it(handler: str) -> None:
    accept, result = "text/plain, application/json;q=0.5", {"a": [1, 2]}
    others = {"predict_fn": lambda data, model: data} if handler == "output_fn" else {}
    free = model(**{handler: lambda *_: result}, **others)
    assert answer(free, accept=accept) == (b'{"a":[1,2]}', "application/json")
    typed = model(**{handler: lambda *_: (result, "text/plain")}, **others)
    with pytest.raises(InferenceError, match="text/plain cannot carry this dict"):
        answer(typed, accept=accept)


def test_predict_defaults_to_the_method_of_the_model() -> None:
    class Twice:
        def predict(self, data: list[int]) -> list[int]:
            return [2 * x for x in data]

    assert answer(model(model_fn=lambda model_dir: Twice())) == (b"[2]", "application/json")


@pytest.mark.parametrize(
    "predict",
    [
        lambda data, model, context: [context.gpu_id],
        lambda data, model, *rest: [rest[0].gpu_id],
        lambda data, model, *, context: [context.gpu_id],
    ],
)
def test_the_context_comes_last_where_it_is_taken(predict: Any) -> None:
    assert answer(model(predict_fn=predict))[0] == b"[3]"
    assert answer(model(predict_fn=lambda data, model: [model]))[0] == b'["model"]'


def test_text_formats_reach_input_fn_as_text() -> None:
    seen: list[object] = []
    echo = model(input_fn=lambda body, kind: seen.append(body), predict_fn=lambda data, model: 0)
    for kind in ("application/json", "text/csv; charset=utf-8", "application/x-npy", "text/plain"):
        answer(echo, b"1", kind)
    assert seen == ["1", "1", b"1", b"1"]
    with pytest.raises(InferenceError) as refused:
        answer(echo, b"\xff", "text/csv")
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("text", (b"text", "application/json")),
        (b"raw", (b"raw", "application/json")),
        ((b"png", "image/png"), (b"png", "image/png")),
        ([1, 2], (b"[1,2]", "application/json")),
    ],
)
def test_what_output_fn_may_return(output: Any, expected: tuple[bytes, str]) -> None:
    made = model(predict_fn=lambda data, model: data, output_fn=lambda prediction, accept: output)
    body, mimetype = answer(made)
    assert (bytes(body), mimetype) == expected


def test_a_response_of_flask_is_given_on() -> None:
    def output(prediction: Any, accept: str) -> Any:
        return flask.Response("teapot", 418, {"X-Own": "1"}, mimetype="text/tea")

    context = Context([], "id", None)
    payload = Payload()
    payload.write(b"1")
    made = model(predict_fn=lambda data, model: data, output_fn=output)
    assert made.answer(payload, "application/json", "", context) == (b"teapot", None)
    assert (context.status, context.response_headers["X-Own"]) == (418, "1")
    assert context.response_headers["Content-Type"].startswith("text/tea")


@pytest.mark.parametrize(
    ("accept", "kind"), [("image/png", "image/png"), ("", codecs.OCTETS), ("*/*", codecs.OCTETS)]
)
def test_bytes_are_what_the_client_asks_for(accept: str, kind: str) -> None:
    assert answer(model(predict_fn=lambda data, model: b"png"), accept=accept) == (b"png", kind)


@pytest.mark.parametrize(
    ("chunks", "written", "kind"),
    [
        (["a", b"b"], [b"a", b"b"], "text/csv"),
        ([[1, 2], {"a": 3}], [b"1\n2\n", b'{"a":3}\n'], codecs.JSON_LINES),
        ([], [b""], "text/csv"),
    ],
)
def test_a_stream_is_labelled_as_what_it_is(chunks: list[Any], written: list[bytes], kind: str) -> None:
    for handlers in (
        {"predict_fn": lambda data, model: (chunk for chunk in chunks)},
        {"predict_fn": lambda data, model: 0, "output_fn": lambda data, accept: iter(chunks)},
    ):
        body, mimetype = answer(model(**handlers), accept="text/csv")
        assert (list(body), mimetype) == (written, kind)
    made = model(predict_fn=lambda *_: 0, output_fn=lambda *_: (iter([[1]]), "text/event-stream"))
    assert answer(made)[1] == "text/event-stream"


def test_what_fails_before_the_first_chunk_fails_as_any_call() -> None:
    def fail(data: Any, model: Any) -> Any:
        raise InferenceError("no", 422)
        yield

    with pytest.raises(InferenceError, match="no"):
        answer(model(predict_fn=fail))


def test_async_handlers_run_on_one_loop() -> None:
    threads: set[int] = set()
    closed: list[int] = []

    async def step(value: Any) -> Any:
        await asyncio.sleep(0)
        threads.add(threading.get_ident())
        return value

    async def model_fn(model_dir: str) -> int:
        return int(await step(2))

    async def predict_fn(data: Any, model: int, context: Context) -> Any:
        return await step([model, context.gpu_id])

    async def chunks(data: Any, model: int) -> Any:
        try:
            for part in ("a", "b", "c"):
                yield await step(part)
        finally:
            closed.append(1)

    async def ping_fn(model: int) -> bool:
        return bool(await step(False))

    assert answer(model(model_fn=model_fn, predict_fn=predict_fn))[0] == b"[2,3]"
    body, _ = answer(model(predict_fn=chunks))
    assert list(body) == [b"a", b"b", b"c"]
    body, _ = answer(model(predict_fn=chunks))
    assert next(body) == b"a"
    body.close()  # as if the client were gone
    assert closed == [1, 1]
    assert not model(ping_fn=ping_fn).ping()
    assert len(threads) == 1 and threads != {threading.get_ident()}

    async def broken(data: Any, model: Any) -> Any:
        raise InferenceError("not today", 429)

    with pytest.raises(InferenceError, match="not today"):
        answer(model(predict_fn=broken))


@pytest.mark.parametrize("in_a_task", [False, True])
@pytest.mark.timeout(30)
def test_an_async_handler_that_exits_ends_its_own_call_alone(in_a_task: bool) -> None:
    others_runs, exited = threading.Event(), threading.Event()

    async def leave() -> None:
        raise SystemExit("the end")

    async def exits(data: Any, model: Any) -> Any:
        await (asyncio.create_task(leave()) if in_a_task else leave())

    async def waits(data: Any, model: Any) -> Any:
        others_runs.set()
        while not exited.is_set():
            await asyncio.sleep(0.01)
        return "done"

    answers: list[bytes] = []
    other = threading.Thread(target=lambda: answers.append(answer(model(predict_fn=waits))[0]), daemon=True)
    other.start()
    assert others_runs.wait(10)
    with pytest.raises(SystemExit, match="the end"):
        answer(model(predict_fn=exits))
    exited.set()
    other.join(10)
    assert answers == [b'"done"']


def test_async_handlers_run_in_a_child_of_the_process_that_loaded_them() -> None:
    async def predict_fn(data: Any, model: Any) -> Any:
        return [os.getpid()]

    made = model(predict_fn=predict_fn)
    answer(made)
    child = os.fork()
    if child == 0:
        os._exit(answer(made)[0] != b"[%d]" % os.getpid())
    assert os.waitpid(child, 0)[1] == 0


def test_an_async_stream_fn_is_refused_when_it_is_loaded() -> None:
    async def stream_fn(stream: Any, model: Any) -> None: ...

    with pytest.raises(UserError, match=r"stream_fn in inference\.py is async: define it with `def`"):
        model(stream_fn=stream_fn)


def test_transform_fn_replaces_the_three() -> None:
    def transform(model: str, body: str, content_type: str, accept: str) -> tuple[str, str]:
        return f"{model} {body} {content_type} {accept}", "text/plain"

    made = model(transform_fn=transform)
    assert answer(made, b"1", "text/csv", "text/csv;q=0.1, image/png") == (
        b"model 1 text/csv image/png",
        "text/plain",
    )
    with pytest.raises(UserError):
        model(transform_fn=transform, predict_fn=lambda data, model: data)


def test_a_stream_fn_has_nothing_to_return() -> None:
    seen: list[object] = []
    stream, context = cast(Any, "stream"), Context([], "id", None)
    made = model(stream_fn=lambda *arguments: seen.extend(arguments))
    made.talk(stream, context)
    assert seen == ["stream", "model", context]
    assert made.has_stream and not model().has_stream
    with pytest.raises(TypeError, match="a generator: send messages with"):
        model(stream_fn=lambda stream, model: (yield)).talk(stream, context)


def test_a_model_without_model_fn_says_what_to_write() -> None:
    with pytest.raises(UserError, match="def model_fn"):
        model(model_fn=None)


def test_warm_up_sees_the_model() -> None:
    warmed: list[str] = []
    model(model_warmup_fn=warmed.append)
    assert warmed == ["model"]


def test_headers_match_in_any_case() -> None:
    headers = Headers([("X-A", "1"), ("x-a", "2"), ("B", "3")])
    assert (headers["x-A"], headers.get("b"), headers.get("c"), "X-a" in headers) == ("1,2", "3", None, True)


class WithStatus(Exception):
    status_code = 429


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InferenceError("no", 422), 422),
        (WithStatus("slower"), 429),
        (Gone("no more"), 410),
        (HTTPException("a status that is none"), 500),
        (MemoryError(), 507),
        (ValueError("private"), 500),
        (SystemExit(1), 500),
    ],
)
def test_errors_become_answers(error: BaseException, status: int) -> None:
    answer = failure(error, "id-1")
    assert answer.status == status
    assert b"private" not in answer.body
    assert b"id-1" in answer.body


@pytest.mark.parametrize("status", [0, 99, 200, 600])
def test_a_status_that_is_no_error_is_refused_where_it_is_raised(status: int) -> None:
    with pytest.raises(ValueError, match=f"from 400 to 599, not {status}"):
        InferenceError("all is well", status)


@pytest.mark.parametrize(
    ("sent", "valid"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", True),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("", False),
    ],
)
def test_the_trace_of_the_caller(sent: str, valid: bool) -> None:
    assert Context([("TRACEPARENT", sent)], "id", None).traceparent == (sent if valid else None)


def test_handlers_of_the_toolkits_find_the_names_of_their_context() -> None:
    context = Context([("CONTENT-TYPE", "text/csv"), ("X-A", "1")], "id-1", 3)
    properties = context.system_properties
    assert (properties["gpu_id"], properties["model_dir"], properties["batch_size"]) == (3, paths.MODEL, 1)
    processor = context.request_processor[0]
    assert processor.get_request_property("Content-Type") == "text/csv"
    assert processor.get_request_properties().get("x-a") == context.get_request_header(0, "X-A") == "1"
    assert context.get_request_id(0) == "id-1"
    context.set_response_content_type(0, "image/png")
    context.set_response_header(0, "X-Own", "1")
    processor.report_status(201, "Created")
    context.metrics.add_counter("seen", 1, idx=0)
    assert dict(context.response_headers) == {"Content-Type": "image/png", "X-Own": "1"}
    assert context.status == 201


def test_additional_model_data_has_a_folder_for_each_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ADDITIONAL_MODEL_DATA", f"{tmp_path}/data")
    assert Context([], "id", None).additional_model_data == {}
    (tmp_path / "data/draft").mkdir(parents=True)
    assert Context([], "id", None).additional_model_data == {"draft": f"{tmp_path}/data/draft"}


def test_a_response_keeps_all_of_its_cookies() -> None:
    def output(prediction: Any, accept: str, context: Context) -> Any:
        context.response_headers["X-Own"] = "1"
        response = flask.Response("ok")
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    context, payload = Context([], "id", None), Payload()
    payload.write(b"1")
    model(predict_fn=lambda *_: 0, output_fn=output).answer(payload, "", "", context)
    cookies = [value for name, value in context.response_headers.items() if name == "Set-Cookie"]
    assert [cookie.partition(";")[0] for cookie in cookies] == ["a=1", "b=2"]
    assert context.response_headers["X-Own"] == "1"


def test_a_model_fn_that_may_not_write_beside_the_model_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(path: str) -> Any:
        def model_fn(model_dir: str) -> None:
            raise PermissionError(13, "Permission denied", path)

        return model_fn

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match=r"model/cache as uid 1000 .*SAGEMAKER_MODEL_SERVER_USER=root"):
        model(model_fn=refused(f"{paths.MODEL}/cache"))
    with pytest.raises(PermissionError):
        model(model_fn=refused("/etc/shadow"))
