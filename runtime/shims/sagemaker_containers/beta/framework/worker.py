"""`Response`: a whole response, JSON by default."""

from __future__ import annotations

from typing import Any

from optml.serving.model.codecs import JSON

try:
    from werkzeug.wrappers import Response as Base
except ImportError:  # a training image, where a script that also serves may import this
    Base = object  # type: ignore[misc,assignment]


class Response(Base):
    """Like flask's, but the second argument, `accept`, is ignored; it is kept for older scripts."""

    default_mimetype = JSON

    def __init__(
        self,
        response: Any = None,
        accept: str | None = None,
        status: int = 200,
        headers: Any = None,
        mimetype: str | None = None,
        direct_passthrough: bool = False,
    ) -> None:
        super().__init__(response, status, headers, mimetype, None, direct_passthrough)
