"""Bodies in memory, on disk, and when both are full."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optml.serving.errors import InferenceError
from optml.serving.http import payload as payloads
from optml.serving.http.body import Sized
from optml.serving.http.payload import SPOOL_SIZE, Bodies, Payload, bodies_of_worker

KB = 1 << 10


def filled(bodies: Bodies, *parts: int) -> Payload:
    payload = Payload(bodies)
    for part in parts:
        payload.write(b"x" * part)
    return payload


def is_on_disk(payload: Payload) -> bool:
    return hasattr(payload.file(), "fileno") and payload.file().__class__.__name__ != "BytesIO"


@given(parts=st.lists(st.binary(max_size=50), max_size=6), memory=st.integers(0, 200))
def test_what_is_written_is_read(parts: list[bytes], memory: int) -> None:
    payload = Payload(Bodies(1000, memory))
    for part in parts:
        payload.write(part)
    whole = b"".join(parts)
    assert (payload.read(), payload.read(), payload.file().read()) == (whole, whole, whole)
    assert payload.size == len(whole)
    payload.close()


def test_small_bodies_lie_in_memory_large_ones_on_disk() -> None:
    bodies = Bodies(10 * SPOOL_SIZE, 10 * SPOOL_SIZE)
    assert not is_on_disk(filled(bodies, SPOOL_SIZE // 2, SPOOL_SIZE // 2))
    assert is_on_disk(filled(bodies, SPOOL_SIZE // 2, SPOOL_SIZE // 2 + 1))


def test_all_bodies_share_the_memory() -> None:
    bodies = Bodies(KB * KB, 10 * KB)
    held = [filled(bodies, KB // 2, KB // 2) for _ in range(10)]
    assert not any(map(is_on_disk, held))
    another = filled(bodies, 1)
    assert is_on_disk(another) and another.read() == b"x"
    held.pop().close()
    assert not is_on_disk(filled(bodies, KB))  # its memory is free again
    held[0].close()
    held[0].close()
    del held, another  # unclosed payloads are released as well
    assert bodies.reserve(10 * KB)


def test_what_goes_to_disk_gives_its_memory_back() -> None:
    bodies = Bodies(KB * KB, KB)
    large = filled(bodies, KB, 1)
    assert is_on_disk(large) and bodies.reserve(KB)


def test_a_body_without_room_in_memory_or_on_disk_is_refused() -> None:
    bodies = Bodies(KB * KB, KB, files_are_memory=True)
    held = filled(bodies, KB)
    with pytest.raises(InferenceError, match="no room") as refused:
        filled(bodies, 1)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    held.close()
    assert filled(bodies, 1).read() == b"x"


def test_a_body_that_is_complete_at_once_has_room() -> None:
    bodies = Bodies(KB, 0, files_are_memory=True)
    whole = Payload(bodies)
    assert Sized(3, whole).write(b"abc") and whole.read() == b"abc"
    with pytest.raises(InferenceError):
        Sized(3, Payload(bodies)).write(b"ab")


def test_a_full_disk_is_no_fault_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(InferenceError, match="No space left on device") as refused:
        filled(Bodies(KB, 0), 1)
    assert refused.value.status == 503


def test_a_body_has_a_limit() -> None:
    for length in (1025, 1 << 63):
        with pytest.raises(InferenceError, match="SAGEMAKER_MAX_PAYLOAD_IN_MB") as refused:
            Bodies(1024, 1024).check_length(length)
        assert refused.value.status == 413
    with pytest.raises(InferenceError):
        filled(Bodies(3, 1024), 2, 2)


@pytest.mark.parametrize(("tmpfs", "share"), [(False, 128 << 20), (True, 1 << 30)])
def test_workers_share_a_quarter_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, tmpfs: bool, share: int
) -> None:
    monkeypatch.setattr(payloads.machine, "memory_limit", lambda: 8 << 30)
    monkeypatch.setattr(payloads, "_is_tmpfs", lambda directory: tmpfs)
    bodies = bodies_of_worker(KB, 2)
    assert bodies.files_are_memory is tmpfs
    assert bodies.reserve(share) and not bodies.reserve(1)


def test_memory_and_disk_are_told_apart(tmp_path: Path) -> None:
    assert payloads._is_tmpfs("/dev/shm")
    assert not payloads._is_tmpfs("/proc")
    assert not payloads._is_tmpfs(str(tmp_path / "absent"))
