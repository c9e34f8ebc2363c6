"""/ping, from which the platform decides whether a container is alive."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from conformance.clause import Broken, NotChecked, clause, expect
from conformance.server import PING_LIMIT, Server
from conformance.sources import SERVE
from conformance.subject import Subject

CALLERS = 32
LOAD = 4  # seconds to load the model; a call that has to wait for it is not answered in half of that


def pings(server: Server, seconds: float) -> None:
    """Check for some seconds that /ping always answers 200 in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            answer = server.ping(timeout=PING_LIMIT)
        except TimeoutError:
            raise Broken(f"/ping does not answer within {PING_LIMIT:.0f} s") from None
        except OSError as error:
            raise Broken(f"/ping: {error}") from None
        expect(answer.status == 200, f"/ping answers {answer}")
        expect(answer.seconds < PING_LIMIT, f"/ping answers after {answer.seconds:.1f} s")
        time.sleep(0.2)


@clause(
    "P-READY-1",
    "required",
    SERVE,
    "GET /ping on port 8080 answers 200 once the model is loaded, within the start-up time of an endpoint",
    "Answer GET /ping with 200 and an empty body, on 0.0.0.0.",
    verb="serve",
)
def ready(subject: Subject) -> None:
    if subject.has_ended:
        raise NotChecked("the server has exited: see E-SERVE-1")
    expect(not subject.not_ready, subject.not_ready)
    pings(subject.first_server, 1)


@clause(
    "P-READY-2",
    "recommended",  # the document defines 200, but allows a server to answer it always
    SERVE,
    "/ping does not answer 200 before the server can answer calls",
    "Answer 503, or do not listen yet, until the model is loaded: the platform sends calls right after the first 200.",
    verb="serve",
)
def not_ready_early(subject: Subject) -> None:
    with subject.serving({"load": LOAD}) as server:
        server.wait_ready(subject.options.start_timeout)
        try:
            answer = server.call(b'{"early": 1}', timeout=LOAD / 2)
        except TimeoutError:
            raise Broken("the first call after the first 200 of /ping waits for the model") from None
    expect(answer.status == 200, f"the first call after the first 200 of /ping gets {answer}")


@clause(
    "P-FAIL-1",
    "recommended",
    SERVE,
    "/ping never answers 200 if the model cannot be loaded",
    "Answer 503, or exit: an endpoint that fails every call must not look healthy.",
    verb="serve",
)
def never_ready(subject: Subject) -> None:
    with subject.serving({"fail": True}) as server:
        end = time.monotonic() + 8
        while time.monotonic() < end and server.runs:
            with suppress(OSError):  # it may exit
                expect(server.ping().status != 200, "model_fn raises, and /ping answers 200")
            time.sleep(0.3)


@clause(
    "P-LOAD-1",
    "required",
    SERVE,
    f"/ping answers within {PING_LIMIT:.0f} s while {CALLERS} calls run or wait",
    "Answer /ping where no call can block it: not in a worker that runs a model, and not behind the same queue.",
    verb="serve",
)
def busy(subject: Subject) -> None:
    body = b'{"sleep": 1}' if subject.handlers_run else None
    server = subject.server
    with ThreadPoolExecutor(CALLERS) as callers:
        running = [callers.submit(_quietly, server, body) for _ in range(CALLERS)]
        time.sleep(0.3)
        try:
            pings(server, 3)
        finally:
            for call in running:
                call.result()


@clause(
    "P-SLOW-1",
    "recommended",
    SERVE,
    f"/ping answers within {PING_LIMIT:.0f} s while {CALLERS} clients send their calls slowly",
    "Read requests without a thread or worker per request, or put a server that does so in front.",
    verb="serve",
)
def slow_clients(subject: Subject) -> None:
    server = subject.server
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    clients = [server.connect() for _ in range(CALLERS)]
    try:
        for client in clients:
            client.sendall(head + b'{"')
        time.sleep(0.3)
        pings(server, 3)
    finally:
        for client in clients:
            client.close()


@clause(
    "P-CRASH-1",
    "recommended",
    SERVE,
    "If a call kills its process, only that call fails, and the server answers again",
    "Run the model in a worker process that is replaced when it dies, or let the container exit.",
    verb="serve",
)
def survives_crash(subject: Subject) -> None:
    with subject.serving({}) as server:
        server.wait_ready(subject.options.start_timeout)
        try:
            answer = server.call(b'{"die": 1}', timeout=30)
            expect(answer.status >= 500, f"that call gets {answer}")
        except OSError:
            pass
        if not server.runs and server.exit_code != 0:
            raise NotChecked("the container exits instead, and the platform starts another")
        server.wait_ready(60)
        answer = server.call(b'{"later": 1}')
        expect(answer.status == 200, f"a call after that gets {answer}")


def _quietly(server: Server, body: bytes | None) -> None:
    try:
        server.call(body, timeout=60)
    except OSError:
        pass
