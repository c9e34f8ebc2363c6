"""The access log: one line a request, none for /ping, nothing of what the user sent but method and path."""

from __future__ import annotations

import json
import time

from ..report import say
from .settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Log = Callable[[str, str, int, float, float, float, str], None]


def access_log(settings: Settings) -> Log:
    """A function of method, path, status, milliseconds in all, in queue and in model, and request id."""
    return {"text": _text, "json": _json, "off": _off}[settings.access_log]


def _text(method: str, path: str, status: int, total: float, queued: float, model: float, id: str) -> None:
    say(f"{method} {_printable(path)} {status} {total:.1f} ms (queue {queued:.1f}, model {model:.1f}) {id}")


def _json(method: str, path: str, status: int, total: float, queued: float, model: float, id: str) -> None:
    record = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "method": method,
        "path": path,
        "status": status,
        "ms": round(total, 1),
        "queue_ms": round(queued, 1),
        "model_ms": round(model, 1),
        "request_id": id,
    }
    say_plain(json.dumps(record))


def _off(method: str, path: str, status: int, total: float, queued: float, model: float, id: str) -> None:
    pass


def _printable(path: str) -> str:
    return path if path.isprintable() else ascii(path)


def say_plain(line: str) -> None:
    """A line for machines: no prefix."""
    import os

    try:
        os.write(2, f"{line}\n".encode())
    except OSError:
        pass  # as in report
