"""The context of a call: what a handler may read, and what it may set in the response."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from ... import paths

# https://www.w3.org/TR/trace-context/: version, trace, parent and flags. Version ff does not exist.
_TRACEPARENT = r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"


class Headers(dict[str, str]):
    """Request headers; names are case-insensitive, and stored in lower case."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in pairs:
            name = name.lower()
            self[name] = f"{self[name]},{value}" if name in self else value

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class ResponseHeaders(dict[str, str]):
    """Response headers: a dict for handlers, but its items repeat headers that a response repeats."""

    _more: tuple[tuple[str, str], ...] = ()

    def replace(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Set the headers of a whole response, which may repeat a name, as for cookies."""
        self._more = ()
        new: dict[str, str] = {}
        for name, value in pairs:
            if name in new:
                self._more += ((name, value),)
            new.setdefault(name, value)
        self.update(new)

    def items(self) -> Any:
        return (*super().items(), *self._more)


class ToolkitContext:
    """Names that the contexts of the inference toolkits have, for handlers written for them.

    A call here is a batch of one: indexes are ignored, and the only request processor is the context itself.
    """

    __slots__ = ()

    @property
    def system_properties(self: Any) -> dict[str, Any]:
        return {"model_dir": self.model_dir, "gpu_id": self.gpu_id, "batch_size": 1, "server_name": "optml"}

    @property
    def request_processor(self: Any) -> list[Any]:
        return [self]

    @property
    def metrics(self) -> Any:
        return _NoMetrics()

    def get_request_id(self: Any, idx: int = 0) -> str:
        return str(self.request_id)

    def get_request_header(self: Any, idx: int, key: str) -> str | None:
        return self.get_request_property(key)  # type: ignore[no-any-return]

    def get_request_property(self: Any, key: str) -> str | None:
        return self.request_headers.get(key)  # type: ignore[no-any-return]

    def get_request_properties(self: Any) -> Headers:
        return self.request_headers  # type: ignore[no-any-return]

    def set_response_header(self: Any, idx: int, key: str, value: str) -> None:
        self.add_response_property(key, value)

    def set_response_content_type(self: Any, idx: int, value: str) -> None:
        self.add_response_property("Content-Type", value)

    def add_response_property(self: Any, key: str, value: str) -> None:
        self.response_headers["Content-Type" if key.lower() == "content-type" else key] = value

    def set_http_response_status(self: Any, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.status = code

    def report_status(self: Any, code: int, reason_phrase: str | None = None) -> None:
        self.status = code


class _NoMetrics:
    """Discards `add_counter`, `add_time` and so on; /metrics has only the server's own counters."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("add_"):
            raise AttributeError(name)
        return lambda *_, **__: None


class Context(ToolkitContext):
    """What a handler may read about its call, and set in the response.

    To read: `request_headers` (names are case-insensitive), `request_id`, `model_dir`, `gpu_id` (an index or
    None), `additional_model_data` (name → folder), `traceparent` (the caller's W3C trace context, or None);
    in stream_fn also the request's `path` and `query`. To set: `status` and `response_headers`.
    """

    __slots__ = (
        *("_pairs", "_headers", "gpu_id", "model_dir", "path", "query", "request_id"),
        *("response_headers", "status"),
    )

    def __init__(
        self,
        pairs: list[tuple[str, str]],
        request_id: str,
        gpu_id: int | None,
        path: str = "",
        query: str = "",
    ) -> None:
        self._pairs = pairs
        self._headers: Headers | None = None
        self.request_id = request_id
        self.model_dir = paths.MODEL
        self.gpu_id = gpu_id
        self.path = path
        self.query = query
        self.status = 200
        self.response_headers = ResponseHeaders()

    @property
    def request_headers(self) -> Headers:
        if self._headers is None:  # most handlers never read them
            self._headers = Headers(self._pairs)
        return self._headers

    @property
    def additional_model_data(self) -> dict[str, str]:
        root = paths.ADDITIONAL_MODEL_DATA
        return {name: f"{root}/{name}" for name in sorted(os.listdir(root))} if os.path.isdir(root) else {}

    @property
    def traceparent(self) -> str | None:
        sent: str = self.request_headers.get("traceparent", "")
        return sent if re.fullmatch(_TRACEPARENT, sent) else None
