"""/invocations: calls, errors, limits."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from conformance.clause import NotChecked, clause, expect
from conformance.clauses.security import serves
from conformance.server import Answer, Server
from conformance.sources import BATCH, ERRORS, HTTP, INVOKE, SERVE
from conformance.subject import Subject

LARGEST = 6 * 1024 * 1024  # bytes of a call to a real-time endpoint
LONGEST = 50  # seconds; the platform waits for 60
NEEDS_PAYLOAD = "needs a request that the image answers: --payload FILE --content-type TYPE"
ATTRIBUTES = "trace-id=42; tenant=a"


def answered(subject: Subject) -> Server:
    """A server for which a valid call is known."""
    if not subject.handlers_run and subject.options.payload is None:
        raise NotChecked(NEEDS_PAYLOAD)
    if subject.plain_answer.status != 200:
        raise NotChecked("no call is answered: see V-CALL-1")
    return subject.server


@clause(
    "V-CALL-1",
    "required",
    SERVE,
    "POST /invocations answers a valid call with 200",
    "Route POST /invocations to the model.",
    verb="serve",
)
def call(subject: Subject) -> None:
    if not subject.handlers_run and subject.options.payload is None:
        raise NotChecked(NEEDS_PAYLOAD)
    answer = subject.plain_answer
    expect(answer.status == 200, f"it answers {answer}")


@clause(
    "V-CALL-2",
    "required",
    SERVE,
    "Concurrent calls are all answered",
    "Queue calls, or run several workers.",
    verb="serve",
)
def together(subject: Subject) -> None:
    server = answered(subject)
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: server.call(), range(8)))
    wrong = [str(a) for a in answers if a.status != 200]
    expect(not wrong, f"{len(wrong)} of 8 calls are not answered: {wrong[:1]}")


@clause(
    "V-SIZE-1",
    "required",
    INVOKE,
    "A call of 6 MB is accepted",
    "Raise the limit of the server or of the proxy in front of it (nginx: client_max_body_size 6m).",
    verb="serve",
)
def large(subject: Subject) -> None:
    server = subject.server
    answer = server.ask(
        "POST", "/invocations", b"x" * LARGEST, {"Content-Type": "text/plain", "Accept": "application/json"}
    )
    if subject.handlers_run:
        expect(answer.status == 200, f"it answers {answer}")
        expect(f'"size": {LARGEST}'.encode() in answer.body, f"the handler does not get all of it: {answer}")
    else:
        expect(answer.status != 413, f"it answers {answer}")


@clause(
    "V-SIZE-2",
    "recommended",
    HTTP,
    "A call with a chunked body, without a length, is accepted",
    "Also read bodies with `Transfer-Encoding: chunked`: clients that stream send them.",
    verb="serve",
)
def chunked(subject: Subject) -> None:
    server = answered(subject)
    body, headers = server.payload, {"Content-Type": server.content_type}
    answer = server.ask("POST", "/invocations", iter([body[:1], body[1:]]), headers, timeout=30)
    expect(answer.status == 200, f"it answers {answer}")
    if subject.handlers_run:
        expect(
            f'"size": {len(body)}'.encode() in answer.body, f"the handler does not get all of it: {answer}"
        )


@clause(
    "V-TIME-1",
    "required",
    INVOKE,
    f"A call that takes {LONGEST} s is answered",
    "Raise the timeout of workers and proxies to 60 s (gunicorn: --timeout 60).",
    verb="serve",
    slow=True,
)
def long(subject: Subject) -> None:
    subject.needs_handlers()
    answer = subject.server.call(json.dumps({"sleep": LONGEST}).encode(), timeout=60)
    expect(answer.status == 200, f"it answers {answer}")


@clause(
    "V-ERROR-1",
    "required",
    INVOKE,
    "A failing call is answered with 4xx or 5xx, and the server continues",
    "Turn exceptions into a 500: an error sent with 200 counts as a prediction.",
    verb="serve",
)
def failing(subject: Subject) -> None:
    answer = _failed(subject)
    expect(400 <= answer.status < 600, f"it answers {answer}")
    after = subject.server.ping()
    expect(after.status == 200, f"/ping then answers {after}")


@clause(
    "V-ERROR-2",
    "recommended",
    ERRORS,
    "The response to a failing call is JSON or text, without a traceback or file names of the server",
    "Answer with a message for the client, and keep the traceback in the log.",
    verb="serve",
)
def discreet(subject: Subject) -> None:
    answer = _failed(subject)
    shown = [
        w
        for w in (b"Traceback (most recent", b'File "/', b"<!doctype html", b"<html")
        if w in answer.body[:20000]
    ]
    expect(not shown, f"the response contains {shown[0]!r}" if shown else "")


def _failed(subject: Subject) -> Answer:
    """The response to a call in which the model raises, or with the user's own model to one that is not JSON."""
    if subject.handlers_run:
        return subject.server.call(b'{"raise": 1}')
    return subject.server.ask("POST", "/invocations", b"\xff\x00{", {"Content-Type": "application/json"})


@clause(
    "V-ERROR-3",
    "recommended",
    HTTP,
    "A path that does not exist is answered with 4xx",
    "Answer 404.",
    verb="serve",
)
def wrong_path(subject: Subject) -> None:
    answer = subject.server.ask("GET", "/no/such/path")
    expect(400 <= answer.status < 500, f"GET /no/such/path answers {answer}")


@clause(
    "V-ERROR-4",
    "recommended",
    HTTP,
    "GET /invocations is answered with 4xx",
    "Answer 405.",
    verb="serve",
)
def wrong_method(subject: Subject) -> None:
    answer = subject.server.ask("GET", "/invocations")
    expect(400 <= answer.status < 500, f"it answers {answer}")


@clause(
    "V-HEADER-1",
    "recommended",
    INVOKE,
    "X-Amzn-SageMaker-Custom-Attributes reaches the handler",
    "Pass the request's headers to the handlers, in a context.",
    verb="serve",
)
def attributes(subject: Subject) -> None:
    subject.needs_handlers()
    answer = subject.server.call(b'{"attributes": 1}', X_Amzn_SageMaker_Custom_Attributes=ATTRIBUTES)
    expect(
        answer.status == 200 and ATTRIBUTES in answer.body.decode(errors="replace"), f"it answers {answer}"
    )


@clause(
    "V-HEADER-3",
    "recommended",
    INVOKE,
    "X-Amzn-SageMaker-Custom-Attributes set by a handler is in the response",
    "Let handlers set headers of the response, through the context.",
    verb="serve",
)
def attributes_of_the_answer(subject: Subject) -> None:
    subject.needs_handlers()
    answer = subject.server.call(json.dumps({"set-attributes": ATTRIBUTES}).encode())
    seen = answer.headers["X-Amzn-SageMaker-Custom-Attributes"]
    expect(seen == ATTRIBUTES, f"the header is {seen!r}, the response {answer}")


@clause(
    "V-HEADER-2",
    "required",
    INVOKE,
    "Unknown headers are ignored",
    "Ignore them: the platform adds new ones.",
    verb="serve",
)
def unknown_headers(subject: Subject) -> None:
    server = answered(subject)
    answer = server.call(
        X_Amzn_SageMaker_Inference_Id="1",
        X_Amzn_SageMaker_Session_Id="NEW_SESSION",
        X_Amzn_SageMaker_Unheard_Of="é",
    )
    expect(answer.status == 200, f"it answers {answer}")


@clause(
    "V-BATCH-1",
    "required",
    BATCH,
    "GET /execution-parameters, if it exists, answers in the form that batch transform reads",
    'Answer {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}, or 404.',
    verb="serve",
)
def batch(subject: Subject) -> None:
    answer = subject.server.ask("GET", "/execution-parameters")
    if answer.status in (404, 405, 501):
        raise NotChecked("it does not exist, and is optional")
    try:
        found = json.loads(answer.body)
        strategy = found["BatchStrategy"]
        numbers = [found["MaxConcurrentTransforms"], found["MaxPayloadInMB"]]
    except (ValueError, KeyError, TypeError):
        strategy, numbers = None, []
    right = answer.status == 200 and strategy in (
        "SINGLE_RECORD",
        "MULTI_RECORD",
        "SingleRecord",
        "MultiRecord",
    )
    expect(right and all(isinstance(n, int) for n in numbers), f"it answers {answer}")


@clause(
    "V-BATCH-2",
    "required",
    BATCH,
    "Serving works with the variables of batch transform: SAGEMAKER_BATCH and three more",
    "Ignore those that the server does not need.",
    verb="serve",
)
def batch_variables(subject: Subject) -> None:
    variables = {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6",
        "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
    }
    serves(subject, environment=variables)
