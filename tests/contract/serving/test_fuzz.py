"""The HTTP surface under thousands of inputs, both as openapi.json describes them and as it does not."""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import quote, unquote, urlencode

import jsonschema
import numpy
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from optml.serving.multimodel.router import create_router
from tests.support.bodies import BODIES, JSON, damaged
from tests.support.matrix import ROOT

from .serving import ECHO, Server

DOCUMENT = json.loads((ROOT / "runtime/optml/serving/openapi.json").read_text())
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if method != "parameters"
}
INPUT = DOCUMENT["components"]["requestBodies"]["Input"]["content"]
PREDICTION = DOCUMENT["components"]["responses"]["Prediction"]["content"]
# Must not be in the log, whatever a client sends. A folder without handlers is an error of the client's.
UNEXPECTED = re.compile(r"Traceback|error: (?!no inference\.py)|request \S+ failed|Worker \(pid")
# The minimum for each server: in all, `make test` sends over 10,000 inputs to the two variants.
REQUESTS, MODEL_REQUESTS, STREAMS_OF_BYTES = 2000, 500, 3000
# Random, but fixed in CI, so that only a change of the code can make it fail there.
SEED = 0 if settings.default.derandomize else random.getrandbits(32)

# This machine's numpy, for an image with the same Python; in another variant arrays are an unknown type.
PACKAGES = f"/opt/venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
NUMPY = tuple(
    f"--volume={path}:{PACKAGES}/{path.name}:ro"
    for path in (Path(numpy.__file__).parent, Path(numpy.__file__).parent.with_name("numpy.libs"))
    if path.exists()
)


def test_the_document_is_valid_and_lists_every_route() -> None:
    validate(DOCUMENT)
    flask = create_router(MagicMock(), MagicMock(), "")
    served = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in flask.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    loops = {("GET", "/ping"), ("POST", "/invocations"), ("GET", "/invocations-bidirectional-stream")}
    assert set(OPERATIONS) == served | loops


HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30)
TYPES = st.sampled_from(sorted(INPUT))
WANTED = st.lists(st.sampled_from([*sorted(PREDICTION), "*/*", "text/*", "image/png;q=0.5"]), max_size=3).map(
    ", ".join
)


Exchange = tuple[str, str, dict[str, str], bytes | list[bytes]]


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """Method, path, headers and body, mostly as documented; a body that is a list is sent in chunks."""
    content_type = draw(TYPES)
    matching = draw(st.integers(0, 3)) > 0
    body: bytes | list[bytes] = draw(
        BODIES.get(content_type, st.binary()) if matching else st.binary(max_size=200)
    )
    if draw(st.booleans()):
        cut = draw(st.integers(0, len(body)))
        body = [piece for piece in (body[:cut], body[cut:]) if piece]
    accept = draw(WANTED)
    if draw(st.integers(0, 9)) == 0:
        content_type, accept = draw(HEADER), draw(HEADER)
    headers = {"Content-Type": content_type, "Accept": accept}
    for parameter in OPERATIONS["POST", "/invocations"]["parameters"]:
        if draw(st.integers(0, 9)) == 0:
            headers[parameter["name"]] = draw(HEADER)
    method, path = draw(st.sampled_from([("POST", "/invocations")] * 30 + sorted(OPERATIONS)))
    if draw(st.integers(0, 19)) == 0:
        path += draw(st.sampled_from(["?a=%00", "/", "/../ping", "%2f", ";x", "//"]))
    if draw(st.integers(0, 19)) == 0:
        method = draw(st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"]))
    return method, path, headers, body


NAMES = st.sampled_from("aab") | st.text(max_size=4).filter(lambda name: "/" not in name)
URLS = st.sampled_from(
    ["/opt/ml/model", "/opt/ml/model/", "/opt/ml/model/weights", "/tmp", "..", "\0", "\ud800"]
)
QUERIES = st.dictionaries(
    st.sampled_from(["limit", "next_page_token", "x"]), st.integers().map(str) | st.text(max_size=4)
)


@st.composite
def model_exchanges(draw: st.DrawFn) -> Exchange:
    """The same for the routes about models, a few of which come and go under two names."""
    method, path = draw(st.sampled_from(sorted(key for key in OPERATIONS if key[1].startswith("/models"))))
    body = draw(JSON)
    if (method, path) == ("POST", "/models") and draw(st.integers(0, 4)):
        body = json.dumps({"model_name": draw(NAMES), "url": draw(URLS)}).encode()
    path = path.replace("{name}", quote(draw(NAMES), safe=""))
    if draw(st.integers(0, 19)) == 0:
        path = path.replace("/", "//")
    if draw(st.integers(0, 4)) == 0:
        path += f"?{urlencode(draw(QUERIES))}"
    headers = {"Content-Type": draw(st.just("application/json") | TYPES), "Accept": draw(WANTED)}
    return method, path, headers, body


def _send(client: http.client.HTTPConnection, exchange: Exchange) -> int:
    """Send a request, check that its answer is documented, and return the status."""
    method, target, headers, body = exchange
    try:
        client.request(method, target, iter(body) if isinstance(body, list) else body, headers)
        answer = client.getresponse()
        _check(method, target, answer, answer.read())
    except Exception as error:
        error.add_note(f"after {exchange}")
        raise
    return answer.status


def _check(method: str, target: str, answer: http.client.HTTPResponse, body: bytes) -> None:
    """Check an answer against the document; for what it does not list, against the common errors."""
    path = re.sub("^/+", "/", unquote(target.partition("?")[0]))
    path = re.sub("^/models/[^/]+", "/models/{name}", path)
    operation = OPERATIONS.get((method, path))
    content_type = (answer.headers["Content-Type"] or "").partition(";")[0]
    if operation is None:
        assert answer.status < 500, answer.status
        if path == "/ping" or method in ("OPTIONS", "HEAD"):
            return
        assert answer.status in (404, 405), answer.status
        content: dict[str, Any] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    else:
        assert answer.status != 500
        assert str(answer.status) in operation["responses"], answer.status
        documented = operation["responses"][str(answer.status)]
        if "$ref" in documented:
            documented = DOCUMENT["components"]["responses"][documented["$ref"].rpartition("/")[2]]
        content = documented.get("content", {"": {}})
    # Bytes that a handler returns are sent as the type that the client asked for.
    asked = content_type == "image/png" and "*/*" in content
    assert content_type in content or asked, (answer.status, content_type)
    schema = content.get(content_type, {}).get("schema", {})
    if content_type == "application/json" and schema:
        jsonschema.validate(json.loads(body), schema | {"components": DOCUMENT["components"]})


class Watch:
    """An open connection to every worker, so that the death of one is noticed at once."""

    def __init__(self, server: Server, workers: int) -> None:
        self._address, self._workers = server.address, workers
        self._clients: dict[str, http.client.HTTPConnection] = {}
        self._find_workers()

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Fail if a worker dies in the block, but only once all are back for the next one."""
        try:
            yield
        finally:
            died = [pid for pid, client in self._clients.items() if not _pings(client)]
            for pid in died:
                self._clients.pop(pid).close()
            self._find_workers()
            assert not died, "a worker died"

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _find_workers(self) -> None:
        limit = time.monotonic() + 60
        while len(self._clients) < self._workers:
            assert time.monotonic() < limit, f"there are only {len(self._clients)} workers"
            client = http.client.HTTPConnection(self._address, 8080, timeout=60)
            try:
                client.request("POST", "/invocations", b"[")
                answer = client.getresponse()
                pid = json.loads(answer.read())["requestId"].partition("-")[0]
            except (OSError, http.client.HTTPException):
                client.close()  # the worker that it found is dying
                continue
            if answer.status == 503 or pid in self._clients:
                client.close()
                continue
            client.auto_open = False
            self._clients[pid] = client


def _pings(client: http.client.HTTPConnection) -> bool:
    try:
        client.request("GET", "/ping")
        answer = client.getresponse()
        return (answer.status, answer.read()) == (200, b"")
    except (OSError, http.client.HTTPException):
        return False


# Echoes what every content type can hold, and describes the rest.
MODEL = """
def model_fn(model_dir):
    return "biufU"

def predict_fn(data, model):
    arrays = data.values() if isinstance(data, dict) else [data]
    kinds = {array.dtype.kind for array in arrays if hasattr(array, "dtype")}
    return data if kinds <= set(model) else repr(data)
"""


def fuzz(inputs: int) -> Any:
    """Settings for this many inputs, with shrinking of what fails."""
    return settings(
        max_examples=inputs,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


def _converse(
    server: Server, watch: Watch, exchanges: st.SearchStrategy[Exchange], requests: int
) -> Counter[int]:
    """Send at least this many requests, a few on each connection, and count the statuses of the answers.

    A failure is shrunk to one request, or to the few that only do harm together.
    """
    address, seen = server.address, Counter[int]()

    @fuzz(requests // 10)  # conversations, of 3 to 6 requests on average
    @given(st.lists(exchanges, min_size=1, max_size=40))
    def conversation(sent: list[Exchange]) -> None:
        client = http.client.HTTPConnection(address, 8080, timeout=60)
        with watch.unharmed(), closing(client):
            seen.update(_send(client, exchange) for exchange in sent)

    number = SEED
    while seen.total() < requests:
        seed(f"{server.image} {number}")(conversation)()
        number += 1
    print(f"{seen.total()} answers: {seen}")
    return seen


@pytest.mark.heavy
@pytest.mark.image("cpu-serve")
@pytest.mark.parametrize("requests", [REQUESTS, pytest.param(10_000, marks=pytest.mark.long)])
def test_every_answer_is_documented(image: str, ml: Path, requests: int) -> None:
    with (
        Server(image, ml, MODEL, *NUMPY, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server,
        closing(Watch(server, 2)) as watch,
    ):
        assert server.get("/openapi.json").json() == DOCUMENT
        seen = _converse(server, watch, exchanges(), requests)
        assert seen[200] > 100  # the inputs are not all nonsense
        assert not UNEXPECTED.search(server.log().output)


@pytest.mark.heavy
@pytest.mark.image("cpu-serve")
def test_every_answer_about_models_is_documented(image: str, ml: Path) -> None:
    with (
        Server(image, ml, MODEL, *NUMPY, SAGEMAKER_MULTI_MODEL="true") as server,
        closing(Watch(server, 1)) as watch,
    ):
        seen = _converse(server, watch, model_exchanges(), MODEL_REQUESTS)
        assert seen[200] > 20
        body = json.dumps({"model_name": "after", "url": "/opt/ml/model"}).encode()
        with closing(http.client.HTTPConnection(server.address, 8080, timeout=30)) as client:
            assert _send(client, ("POST", "/models", {}, body)) == 200
            assert _send(client, ("POST", "/models/after/invoke", {}, b"[1]")) == 200
        assert not UNEXPECTED.search(server.log().output)


@pytest.mark.heavy
@pytest.mark.image("cpu-serve")
def test_every_answer_about_many_models_is_documented(image: str, ml: Path) -> None:
    calls = [
        ("POST", "/models", '{"model_name": "a", "url": "/opt/ml/model"}', 200),
        ("POST", "/models", '{"model_name": "a", "url": "/opt/ml/model"}', 409),
        ("POST", "/models", '{"model_name": "b", "url": "/nowhere"}', 404),
        ("POST", "/models", "[", 400),
        ("GET", "/models", None, 200),
        ("GET", "/models/{name}", None, 200),
        ("POST", "/models/{name}/invoke", "[1]", 200),
        ("POST", "/models/{name}/invoke", "[", 400),
        ("DELETE", "/models/{name}", None, 200),
        ("DELETE", "/models/{name}", None, 404),
        ("POST", "/models/{name}/invoke", "[1]", 404),
        ("GET", "/status", None, 200),
        ("GET", "/", None, 200),
        ("GET", "/openapi.json", None, 200),
    ]
    with (
        Server(image, ml, MODEL, SAGEMAKER_MULTI_MODEL="true") as server,
        closing(http.client.HTTPConnection(server.address, 8080, timeout=30)) as client,
    ):
        for method, path, body, status in calls:
            client.request(method, path.replace("{name}", "a"), body, {"Content-Type": "application/json"})
            answer = client.getresponse()
            received = answer.read()
            assert answer.status == status, (method, path, received)
            _check(method, path, answer, received)


WHOLE = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
PIECES = st.sampled_from(
    [
        WHOLE,
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n",
        b"[1]",
        b"3\r\n[1]\r\n0\r\n\r\n",
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"GET http://x/ping HTTP/1.0\r\n",
        b"Content-Length: -1\r\n",
        b"\n",
        b"\x00",
        b"Expect: 100-continue\r\n",
        b"Connection: upgrade\r\n",
        b"ffffffffffffffff\r\n",
        b" : x\r\n",
        b"x" * 9000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 1 2 3 4\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]
)
STREAMS = (
    st.binary(max_size=300)
    | st.lists(PIECES | st.binary(max_size=10), max_size=8).map(b"".join)
    | damaged(WHOLE + b"Content-Length: 3\r\n\r\n[1]")
    | damaged(WHOLE + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n2;x=y\r\n1]\r\n0\r\nA: b\r\n\r\n")
)


@pytest.mark.heavy
@pytest.mark.image("cpu-serve")
def test_random_bytes_are_answered_or_closed(image: str, ml: Path) -> None:
    with (
        Server(image, ml, ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server,
        closing(Watch(server, 2)) as watch,
    ):
        address, sent = server.address, 0

        @fuzz(STREAMS_OF_BYTES)
        @given(STREAMS)
        def stream(data: bytes) -> None:
            nonlocal sent
            sent += 1
            received = b""
            with watch.unharmed(), socket.create_connection((address, 8080), timeout=60) as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                try:
                    while more := client.recv(1 << 16):
                        received += more
                except ConnectionResetError:
                    pass  # closed with bytes of ours unread
            assert re.match(rb"HTTP/1\.[01] \d{3} |$", received), received
            assert b"500" not in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", received, re.M), received

        stream()
        assert sent >= STREAMS_OF_BYTES
        assert not UNEXPECTED.search(server.log().output)
