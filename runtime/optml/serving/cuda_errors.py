"""CUDA errors of the frameworks, recognized by name and text: none of them is imported here."""

from __future__ import annotations

# torch and CuPy; TensorFlow.
_OUT_OF_MEMORY_NAMES = {"OutOfMemoryError", "ResourceExhaustedError"}
# In RuntimeErrors and other general types: torch's allocators, CUDA itself, ONNX Runtime.
_OUT_OF_MEMORY_TEXTS = (
    *("CUDA out of memory", "CUDA error: out of memory", "CUDA failure 2: out of memory"),
    *("CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation", "CUBLAS_STATUS_ALLOC_FAILED"),
    *("BFCArena::AllocateRawInternal",),
)
_OF_JAX = {"XlaRuntimeError", "JaxRuntimeError"}
# ONNX Runtime, TensorFlow and Numba; the others raise RuntimeErrors if CUDA fails.
_NO_RUNTIME_ERRORS = {"RuntimeException", "Fail", "EPFail", "InternalError", "CudaAPIError"}

# After these all CUDA calls of the process fail, which "must be terminated and relaunched".
# Source: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html (cudaError)
_FATAL_TEXTS = (
    *("device-side assert", "illegal memory access", "illegal instruction", "misaligned address"),
    *("unspecified launch failure", "launch timed out", "uncorrectable ECC", "hardware stack error"),
    *("invalid program counter", "operation not supported on global/shared address space"),
    *("cudaErrorAssert", "cudaErrorIllegalAddress", "cudaErrorLaunchFailure", "cudaErrorECCUncorrectable"),
    *("CUDA_ERROR_ASSERT", "CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_ERROR_LAUNCH_FAILED"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU has run out of memory."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = _text(error)
    return (
        bool(names & _OUT_OF_MEMORY_NAMES)
        or any(words in text for words in _OUT_OF_MEMORY_TEXTS)
        or (bool(names & _OF_JAX) and "RESOURCE_EXHAUSTED" in text)
    )


def is_fatal(error: BaseException | None) -> bool:
    """Whether this error, or one that caused it, makes CUDA unusable in this process from now on."""
    for _ in range(10):
        if error is None:
            return False
        text = _text(error) if _is_a_frameworks(error) else ""
        if "cuda" in text.lower() and any(words in text for words in _FATAL_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_a_frameworks(error: BaseException) -> bool:
    """Whether a framework may have raised it. The text of others, such as ValueError, may be a request's."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, RuntimeError) or bool(names & _NO_RUNTIME_ERRORS)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""
