"""Handlers that are `async`: on one event loop for each worker, whose thread starts with their first call."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

_END = object()


def settled(result: Any) -> Any:
    """What a handler returned; awaited where it is awaitable, and an async generator as one that is not."""
    if hasattr(result, "__await__"):
        result = _run(result)
    return _in_turn(result) if hasattr(result, "__anext__") else result


def _in_turn(chunks: AsyncIterator[Any]) -> Iterator[Any]:
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
    asyncio = import_module("asyncio")  # by a function, which finds the user's: their code awaits its futures
    loop = asyncio.new_event_loop()
    threading.Thread(target=_keep_running, args=(loop,), name="async handlers", daemon=True).start()
    return asyncio, loop


def _keep_running(loop: Any) -> None:
    """Run the loop of all calls, whatever one of them does: asyncio lets these two exceptions through."""
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            pass


os.register_at_fork(after_in_child=_loop.cache_clear)  # the thread stays behind
