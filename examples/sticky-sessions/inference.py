"""A model with sessions: adds up the numbers of a session, whose calls SageMaker sends to one instance.

A client opens a session with the SessionId NEW_SESSION, sends the id from the response with later calls, and
ends it with {"close": true}. The instance stays the same but the worker may change, so the state of a session
is in a file that all workers share.
"""

import fcntl
import json
import os
import time
import uuid
from contextlib import contextmanager

from optml.serving import InferenceError

LIFETIME = float(os.environ.get("SESSION_LIFETIME", 1200))  # seconds after the last call
PREFIX = "X-Amzn-SageMaker-"


def model_fn(model_dir):
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"  # in memory if possible
    folder = f"{shared}/sessions"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def transform_fn(folder, body, content_type, accept, context):
    call = json.loads(body)
    id = context.request_headers.get(f"{PREFIX}Session-Id", "")
    if id == "NEW_SESSION":
        id = open_session(folder)
        context.response_headers[f"{PREFIX}New-Session-Id"] = (
            f"{id}; Expires={in_utc(time.time() + LIFETIME)}"
        )
    with session(folder, id) as seen:
        if call.get("close"):
            os.remove(path_of(folder, id))
            context.response_headers[f"{PREFIX}Closed-Session-Id"] = id
        else:
            seen.append(call["number"])
        return json.dumps({"sum": sum(seen), "calls": len(seen)}), "application/json"


def open_session(folder):
    for name in os.listdir(folder):  # first remove expired sessions
        if has_expired(f"{folder}/{name}"):
            remove(f"{folder}/{name}")
    id = str(uuid.uuid4())
    with open(path_of(folder, id), "x") as file:
        file.write("[]")
    return id


@contextmanager
def session(folder, id):
    """The state of a session, for one call at a time."""
    try:
        file = open(path_of(folder, id), "r+")  # noqa: SIM115  only the open may raise this
    except FileNotFoundError:
        raise InferenceError("This session has ended: open one with the id NEW_SESSION.") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if has_expired(file.name):
            remove(file.name)
            raise InferenceError("This session has expired: open one with the id NEW_SESSION.")
        remembered = json.load(file)
        yield remembered
        file.seek(0)
        file.truncate()
        json.dump(remembered, file)


def path_of(folder, id):
    return f"{folder}/{''.join(c for c in id if c.isalnum() or c == '-') or 'none'}"  # not a path


def has_expired(path):
    try:
        return time.time() - os.stat(path).st_mtime > LIFETIME
    except FileNotFoundError:
        return True  # another worker was faster


def remove(path):
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def in_utc(moment):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
