"""The user's handlers and their defaults: a model that turns a payload into a response."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ... import paths
from ...report import UserError
from ..errors import InferenceError
from ..http.payload import Payload
from ..settings import Settings
from . import codecs
from .asynchronous import settled
from .context import Context as Context

if TYPE_CHECKING:  # websockets takes 50 ms to import
    from ..websocket import Stream

Body = bytes | Iterator[bytes]

# Positional arguments of each handler, without the optional context at the end.
_ARGUMENTS = {
    "model_fn": 1,
    "input_fn": 2,
    "predict_fn": 2,
    "output_fn": 2,
    "transform_fn": 4,
    "stream_fn": 2,
    "ping_fn": 1,
    "model_warmup_fn": 1,
    "execution_parameters_fn": 0,
}
_ENCODED_AS_TEXT = (codecs.JSON, codecs.CSV)  # passed to input_fn as str, as in the toolkits


class Model:
    """One loaded model behind the user's handlers."""

    def __init__(self, module: ModuleType, settings: Settings, gpu_id: int | None) -> None:
        """Load the model and warm it up. Raises whatever the user's handlers raise."""
        self._default_accept = settings.default_accept
        self._input = _handler(module, "input_fn")
        self._predict = _handler(module, "predict_fn") or _default_predict
        self._output = _handler(module, "output_fn")
        self._transform = _handler(module, "transform_fn")
        self._stream = _handler(module, "stream_fn")
        self._ping = _handler(module, "ping_fn")
        self.has_stream, self.has_ping = self._stream is not None, self._ping is not None
        self._execution_parameters = _handler(module, "execution_parameters_fn")
        if self._transform and (self._input or self._output or hasattr(module, "predict_fn")):
            raise UserError(
                f"{module.__file__} defines transform_fn together with input_fn, predict_fn or output_fn: "
                "keep transform_fn alone, or the others"
            )
        context = Context([], "load", gpu_id)
        load = _handler(module, "model_fn")
        if load is None:
            raise UserError(
                f"{module.__file__} defines no model_fn: write `def model_fn(model_dir):` that reads "
                f"the files of {paths.MODEL} and returns the model"
            )
        try:
            self.model = load(paths.MODEL, context)
        except PermissionError as error:
            if not str(error.filename).startswith(paths.MODEL) or os.geteuid() == 0:
                raise
            raise UserError(
                f"model_fn cannot use {error.filename} as uid {os.geteuid()} ({error.strerror}): let it "
                "write to /tmp, or start the container as root with SAGEMAKER_MODEL_SERVER_USER=root"
            ) from error
        warm_up = _handler(module, "model_warmup_fn")
        if warm_up is not None:
            warm_up(self.model, context)

    def talk(self, stream: Stream, context: Context) -> None:
        """Run the user's stream_fn. Raises whatever it raises."""
        assert self._stream is not None
        left = self._stream(stream, self.model, context)
        if left is not None:  # a generator, most likely
            raise TypeError(f"stream_fn returned a {type(left).__name__}: send messages with stream.send")

    def ping(self) -> bool:
        """Whether the model is healthy: there is no ping_fn, or it returns anything but False and None."""
        return self._ping is None or self._ping(self.model, Context([], "ping", None)) not in (False, None)

    def execution_parameters(self) -> Any:
        """What the user's execution_parameters_fn returns, an object or a response; None without one."""
        fn = self._execution_parameters
        return fn(Context([], "execution-parameters", None)) if fn else None

    def answer(
        self, payload: Payload, content_type: str, accept: str, context: Context
    ) -> tuple[Body, str | None]:
        """Body and media type of the response to one call; a body that is not bytes is streamed.

        The type is None if the handler returned a whole response, whose headers are in the context.
        """
        content_type = codecs.media_type(content_type) or codecs.JSON
        accepted = codecs.accepted(accept, self._default_accept)
        types = accepted or (self._default_accept,)  # if the client accepts none, a handler may choose
        best = types[0]
        if self._transform:
            body = _read_body(payload, content_type)
            return _finished(self._transform(self.model, body, content_type, best, context), types, context)
        if self._input:
            data = self._input(_read_body(payload, content_type), content_type, context)
        else:
            data = codecs.decode(payload, content_type)
        prediction = self._predict(data, self.model, context)
        if self._output:
            return _finished(self._output(prediction, best, context), types, context)
        if inspect.isgenerator(prediction):
            return _streamed(prediction, best)
        if isinstance(prediction, (bytes, bytearray, memoryview)) and accept and "*" not in accept:
            return bytes(prediction), best  # trust the handler to know what the client accepts
        return codecs.encode(prediction, accepted)


def find_program(settings: Settings) -> str:
    """The file with the handlers. If there is none, raises UserError, which tells what to write."""
    if not os.path.isdir(paths.MODEL):
        raise UserError(f"there is no {paths.MODEL}: mount a folder with the model there")
    for directory in settings.code_dirs:
        path = f"{directory}/{settings.program}"
        if os.path.isfile(path):
            return path
    try:
        found = bool(os.listdir(paths.MODEL))
    except PermissionError:
        raise UserError(f"{paths.MODEL} cannot be read by uid {os.geteuid()}: make it readable") from None
    hint = (
        f"write {paths.MODEL}/code/{settings.program} with model_fn(model_dir), and predict_fn(data, model) "
        "if the model has no predict method"
    )
    if found:
        raise UserError(f"no {settings.program} in {' or '.join(settings.code_dirs)}: {hint}")
    raise UserError(f"{paths.MODEL} is empty: mount or copy the model there, and {hint}")


def load_program(path: str) -> ModuleType:
    """Import the file under its own name, so that pickles that refer to it find their classes."""
    directory, name = os.path.split(path)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    name = os.path.splitext(name)[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file: name one in SAGEMAKER_PROGRAM")
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be read by uid {os.geteuid()}: {error.strerror}") from None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_model(program: str, settings: Settings, gpu_id: int | None) -> Model:
    """Load the model with the handlers in this file. Their loggers write to stderr from now on."""
    logging.basicConfig(level=settings.log_level)
    return Model(load_program(program), settings, gpu_id)


def _handler(module: ModuleType, name: str) -> Callable[..., Any] | None:
    """The handler as a function that always takes the context, or None if the user defines none."""
    fn: Callable[..., Any] | None = getattr(module, name, None)
    if fn is None:
        return None
    if not callable(fn):
        raise UserError(f"{name} in {module.__file__} is not a function: define it with `def`")
    if name == "stream_fn" and (inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)):
        # Its stream blocks, and so would the event loop of all calls.
        raise UserError(f"stream_fn in {module.__file__} is async: define it with `def`, it gets a thread")
    count = _ARGUMENTS[name]
    parameters = inspect.signature(fn).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) > count or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return lambda *arguments: settled(fn(*arguments))
    if any(p.name == "context" and p.kind is p.KEYWORD_ONLY for p in parameters):
        return lambda *arguments: settled(fn(*arguments[:-1], context=arguments[-1]))
    return lambda *arguments: settled(fn(*arguments[:-1]))


def _default_predict(data: Any, model: Any, context: Context) -> Any:
    if hasattr(model, "predict"):
        return settled(model.predict(data))
    if callable(model):
        return settled(model(data))
    raise TypeError(f"a {type(model).__name__} has no predict method: define predict_fn(data, model)")


def _read_body(payload: Payload, content_type: str) -> bytes | str:
    body = payload.read()
    if content_type not in _ENCODED_AS_TEXT:
        return body
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InferenceError(f"The body is not UTF-8 text: {error}") from error


def _finished(result: Any, types: tuple[str, ...], context: Context) -> tuple[Body, str | None]:
    """Body and type of a result of output_fn or transform_fn: a body, (body, type), response or generator."""
    typed = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str)
    accept = types[0]
    if typed:
        result, accept = result
        types = (codecs.media_type(accept),)
    if isinstance(result, (bytes, bytearray, memoryview)):
        return bytes(result), accept
    if isinstance(result, str):
        return result.encode(), accept
    if hasattr(result, "status_code") and hasattr(result, "iter_encoded"):  # a flask or werkzeug response
        context.status = result.status_code
        context.response_headers.replace(result.headers.items())
        context.response_headers.pop("Content-Length", None)
        return (result.iter_encoded() if result.is_streamed else result.get_data()), None
    if hasattr(result, "__next__"):
        return _streamed(result, accept, typed)
    return codecs.encode(result, types)


def _streamed(chunks: Iterator[Any], accept: str, typed: bool = False) -> tuple[Body, str]:
    """The chunks as they are produced. Objects become a line of JSON each, whatever the client accepts."""
    first = next(chunks, b"")
    in_lines = not typed and not isinstance(first, (str, bytes, bytearray, memoryview))
    return _in_bytes(first, chunks), codecs.JSON_LINES if in_lines else accept


def _in_bytes(first: Any, chunks: Iterator[Any]) -> Iterator[bytes]:
    try:
        for chunk in chain((first,), chunks):
            if isinstance(chunk, str):
                yield chunk.encode()
            elif isinstance(chunk, (bytes, bytearray, memoryview)):
                yield bytes(chunk)
            else:
                yield codecs.encode(chunk, (codecs.JSON_LINES,))[0]
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
