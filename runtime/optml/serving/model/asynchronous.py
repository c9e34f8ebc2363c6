"""Async handlers, on one event loop per worker, whose thread starts with their first call."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

_END = object()


def settled(result: Any) -> Any:
    """The result of a handler, awaited if it is awaitable; an async generator as an ordinary one."""
    if hasattr(result, "__await__"):
        result = _run(result)
    return _as_generator(result) if hasattr(result, "__anext__") else result


def _as_generator(chunks: AsyncIterator[Any]) -> Iterator[Any]:
    try:
        while (chunk := _run(anext(chunks, _END))) is not _END:
            yield chunk
    finally:
        if hasattr(chunks, "aclose"):
            _run(chunks.aclose())


def _run(awaitable: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await awaitable

    asyncio, loop = _loop()
    return asyncio.run_coroutine_threadsafe(wait(), loop).result()


@cache
def _loop() -> tuple[Any, Any]:
    asyncio = import_module("asyncio")  # by this function, to get the user's: user code awaits its futures
    loop = asyncio.new_event_loop()
    threading.Thread(target=_keep_running, args=(loop,), name="async handlers", daemon=True).start()
    return asyncio, loop


def _keep_running(loop: Any) -> None:
    """Keep the loop running for all calls: asyncio lets these two exceptions of any one stop it."""
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            pass


os.register_at_fork(after_in_child=_loop.cache_clear)  # the thread does not survive a fork
