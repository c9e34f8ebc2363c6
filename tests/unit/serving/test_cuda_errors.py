"""CUDA errors of the frameworks, by name and text only."""

from __future__ import annotations

import pytest

from optml.serving.cuda_errors import is_fatal, is_out_of_memory
from optml.serving.errors import InferenceError, as_inference_error


def raised(name: str, text: str, base: type[Exception] = RuntimeError) -> Exception:
    error: Exception = type(name, (base,), {})(text)
    return error


@pytest.mark.parametrize(
    "error",
    [
        raised("OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 MiB."),  # torch
        raised("OutOfMemoryError", "Out of memory allocating 8 bytes", MemoryError),  # CuPy
        raised("ResourceExhaustedError", "OOM when allocating tensor with shape[1]"),  # TensorFlow
        raised(
            "XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes."
        ),  # JAX
        raised("JaxRuntimeError", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes."),
        raised("RuntimeException", "BFCArena::AllocateRawInternal Failed to allocate memory"),  # ONNX Runtime
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_out_of_memory_is_507(error: Exception) -> None:
    assert is_out_of_memory(error) or isinstance(error, MemoryError)
    answer = as_inference_error(error)
    assert answer is not None and answer.status == 507
    assert not is_fatal(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("we are out of memory cards"),
        raised("RpcError", "StatusCode.RESOURCE_EXHAUSTED"),
        ValueError("CUDA"),
        raised("XlaRuntimeError", "INVALID_ARGUMENT: out of memory is not meant"),
    ],
)
def test_other_errors_are_none_of_ours(error: Exception) -> None:
    assert as_inference_error(error) is None
    assert not is_fatal(error)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: device-side assert triggered",
        "CUDA error: an illegal memory access was encountered",
        "INTERNAL: Failed to synchronize: CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA failure 719: unspecified launch failure",
        "CUDA error: uncorrectable ECC error encountered",
    ],
)
def test_after_some_errors_cuda_is_unusable(text: str) -> None:
    assert is_fatal(RuntimeError(text))
    outer = ValueError("no prediction")
    outer.__context__ = RuntimeError(text)
    assert is_fatal(outer)


@pytest.mark.parametrize("name", ["RuntimeException", "EPFail", "InternalError", "CudaAPIError"])
def test_not_all_that_frameworks_raise_are_runtime_errors(name: str) -> None:
    assert is_fatal(raised(name, "CUDA failure 700: an illegal memory access was encountered", Exception))


@pytest.mark.parametrize("kind", [ValueError, KeyError, InferenceError, Exception])
def test_words_of_a_request_are_not_those_of_cuda(kind: type[Exception]) -> None:
    assert not is_fatal(kind("cannot parse 'cuda says: illegal memory access'"))


def test_an_error_that_cannot_be_read_is_none_of_ours() -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert not is_fatal(Unreadable()) and not is_out_of_memory(Unreadable())


def test_a_circle_of_causes_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not is_fatal(one)
