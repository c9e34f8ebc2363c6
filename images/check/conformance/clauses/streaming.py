"""Streamed responses, and streaming in both directions."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import time

from conformance.clause import NotChecked, clause, expect
from conformance.clauses.image import CAPABILITIES
from conformance.sources import SERVE, STREAM
from conformance.subject import Subject

LABEL = f"{CAPABILITIES}bidirectional-streaming"
PATH = "/invocations-bidirectional-stream"


@clause(
    "S-CHUNK-1",
    "recommended",
    STREAM,
    "The parts that a handler yields are sent in chunks, each as soon as it is produced",
    "Send generators with `Transfer-Encoding: chunked`, without buffering (nginx: proxy_buffering off).",
    verb="serve",
)
def chunks(subject: Subject) -> None:
    subject.needs_handlers()
    server = subject.server
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    try:
        connection.request("POST", "/invocations", b'{"chunks": 3}', {"Content-Type": "application/json"})
        response = connection.getresponse()
        first, begin = response.read(2), time.monotonic()
        rest = response.read()
        later = time.monotonic() - begin
    except http.client.HTTPException as error:
        raise ConnectionError(repr(error)) from None
    finally:
        connection.close()
    expect(response.status == 200, f"it answers {response.status} {(first + rest)[:100]!r}")
    expect(first + rest == b"0\n1\n2\n", f"the response is {(first + rest)[:100]!r}")
    # The handler waits a second before the second part, and another before the third.
    expect(later > 1, "all parts arrive together, after the last is produced")


@clause(
    "S-BOTH-1",
    "required",
    SERVE,
    f"If the label declares it, a WebSocket opens at {PATH}",
    f"Accept the upgrade there, or remove the label {LABEL}.",
    verb="serve",
)
def websocket(subject: Subject) -> None:
    if subject.labels.get(LABEL) != "true":
        raise NotChecked(f"the image does not declare it: there is no label {LABEL}=true")
    server = subject.server
    key = base64.b64encode(os.urandom(16))
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    try:
        connection.request(
            "GET",
            PATH,
            headers={
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": key.decode(),
            },
        )
        response = connection.getresponse()
    except http.client.HTTPException as error:
        raise ConnectionError(repr(error)) from None
    finally:
        connection.close()
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    expect(response.status == 101, f"the upgrade is answered with {response.status}")
    expect(response.headers["Sec-WebSocket-Accept"] == proof, "Sec-WebSocket-Accept does not match the key")
