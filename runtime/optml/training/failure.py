"""The second half of runner.py: report the exception that ended a Python program, and end it.

The exception goes to a descriptor, for PID 1, and to TORCHELASTIC_ERROR_FILE, from which torchrun reports
the rank that failed first. This runs in the user's interpreter, too, so it imports only what it needs.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_LONGEST = 16 << 10
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_NVML_PATIENCE = 5.0

# Words of an exception, in lower case, after which the state of the GPUs is reported.
OF_GPUS = ("cuda", "cudnn", "cublas", "nccl", "outofmemory", "resource_exhausted", "resourceexhausted")


def end(error: BaseException, fd: int, reports: bool, own_files: "tuple[str, ...]") -> None:
    """Report the exception, unless a child of the program raised it, and end as the interpreter would.

    If this returns, the caller re-raises the exception.
    """
    error.__traceback__ = trace = _trace_of_program(error, own_files)
    if reports:
        try:
            _report(fd, *(_of_exit(error) if isinstance(error, SystemExit) else _of(error)))
        except Exception:
            pass  # no reader, or an exception with odd attributes: its traceback is on stderr
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return  # the interpreter exits with the code, or by the signal
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    sys.excepthook(type(error), error, trace)
    sys.exit(1)


def _of_exit(error: SystemExit) -> "tuple[str, str]":
    """The text of a SystemExit, or the exception that was being handled; else nothing."""
    if not isinstance(error.code, int):
        return str(error.code), ""
    handled = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return _of(handled) if handled else ("", "")


def _of(error: BaseException) -> "tuple[str, str]":
    return _head(error), _formatted(error)


def _trace_of_program(error: BaseException, own_files: "tuple[str, ...]") -> "TracebackType | None":
    """The traceback without our own frames."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename in own_files:
        trace = trace.tb_next
    return trace


def _head(error: BaseException, *above: BaseException) -> str:
    """The exception in one line, with its notes, parts and cause, except those in `above`."""
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        text = str(error)
    except Exception:
        text = ""
    head = f"{name}: {text}" if text else name
    above = (*above, error)
    parts = (getattr(error, "exceptions", None) or ())[:8]
    if parts := [part for part in parts if isinstance(part, BaseException) and part not in above]:
        head += ": " + "; ".join(_head(part, *above) for part in parts)
    head = "; ".join([head, *map(str, getattr(error, "__notes__", None) or ())])
    cause = error.__cause__
    return f"{head}; caused by {_head(cause, *above)}" if cause and cause not in above else head


def _formatted(error: BaseException) -> str:
    try:
        import traceback

        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:
        return ""  # a traceback.py beside the program shadows the module


def _state_of_gpus(head: str) -> str:
    """The state of the GPUs while this process still holds their memory, and its rank."""
    has_driver = os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/dxg")  # dxg: WSL2
    if not has_driver or not any(word in head.lower() for word in OF_GPUS):
        return ""
    import subprocess

    program = [sys.executable, "-I", "-S", f"{_HOME}/lib/optml/nvml.py", f"{_HOME}/deps", "state"]
    query = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        answer = query.communicate(timeout=_NVML_PATIENCE)[0]
    except subprocess.TimeoutExpired as error:
        query.kill()  # not waited for: it may hang in the kernel
        answer = error.output or b""
    state = "; ".join(answer.decode("utf-8", "replace").splitlines()[1:])
    rank, host = os.environ.get("RANK"), os.environ.get("SM_CURRENT_HOST", "this host")
    return f"; GPUs{f' of rank {rank} on {host}' if rank else ''}: {state}" if state else ""


def _report(fd: int, head: str, trace: str) -> None:
    head += _state_of_gpus(head)
    if fd >= 0:
        # In bytes: the pipe, read after the end, holds 64 KiB, or 4 KiB for a user with many pipes.
        begin, end = (text.encode("utf-8", "replace") for text in (head, trace))
        os.set_blocking(fd, False)
        os.write(fd, begin[:_LONGEST] + b"\0" + end[-_LONGEST:])
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if head and path and not os.path.exists(path):
        import json
        import time

        details = {"py_callstack": trace, "timestamp": str(int(time.time()))}
        with open(path, "w") as file:
            json.dump({"message": {"message": head, "extraInfo": details}}, file)
