"""Handlers as users of the older toolkits wrote them run unchanged."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from tests.support.matrix import ROOT

from .serving import Server, write_handlers

container = pytest.mark.image("cpu-serve")

# For sagemaker-inference, with the context that its later versions pass.
WITH_CONTEXT = """
from sagemaker_inference import content_types, decoder, default_inference_handler, encoder, errors

default = default_inference_handler.DefaultInferenceHandler()

class TooFew(errors.BaseInferenceToolkitError):
    def __init__(self, count):
        super().__init__(422, f"{count} rows are too few", "Unprocessable")

def model_fn(model_dir, context):
    return open(model_dir + "/weights").read()

def input_fn(input_data, content_type, context):
    assert content_type in content_types.UTF8_TYPES, content_type
    rows = default.default_input_fn(input_data, content_type, context)
    if len(rows) < 2:
        raise TooFew(len(rows))
    return rows

def predict_fn(data, model, context):
    return [[float(sum(row)) * int(model)] for row in data]

def output_fn(prediction, accept, context):
    context.response_headers["X-Rows"] = str(len(prediction))
    return default.default_output_fn(prediction, accept, context)
"""

# For a framework container of the SDK: no context, formats told apart by hand.
WITHOUT_CONTEXT = """
import json
import logging
import os

from sagemaker_inference import content_types, encoder, errors

logger = logging.getLogger(__name__)

def model_fn(model_dir):
    logger.info("loading from %s", model_dir)
    with open(os.path.join(model_dir, "weights")) as f:
        return float(f.read())

def input_fn(request_body, request_content_type):
    if request_content_type == content_types.JSON:
        return json.loads(request_body)["inputs"]
    if request_content_type == content_types.CSV:
        return [float(x) for x in request_body.strip().split(",")]
    raise errors.UnsupportedFormatError(request_content_type)

def predict_fn(input_object, model):
    if not input_object:
        raise errors.GenericInferenceToolkitError(400, "no inputs")
    return [model * x for x in input_object]

def output_fn(prediction, response_content_type):
    return encoder.encode(prediction, response_content_type)
"""

# One function for all, which returns the answer with its type.
TRANSFORM = """
from sagemaker_inference import decoder, encoder
from sagemaker_inference.content_types import JSON

def model_fn(model_dir):
    return None

def transform_fn(model, request_body, content_type, accept_type):
    data = decoder.decode(request_body, content_type)
    return encoder.encode({"count": len(data)}, JSON), JSON
"""

# For SageMaker Containers, like scripts for its scikit-learn and XGBoost images: much imported, some used.
WITH_RESPONSES = """
import json
from io import StringIO

from sagemaker_containers.beta.framework import (
    content_types, encoders, env, errors, modules, transformer, worker)

def model_fn(model_dir):
    return 2.0

def input_fn(input_data, content_type):
    if content_type == content_types.CSV:
        return [[float(x) for x in line.split(",")] for line in StringIO(input_data)]
    if content_type == content_types.NPY:
        raise errors.UnsupportedFormatError(content_type)
    if content_type == content_types.JSON:
        return json.loads(encoders.array_to_json(encoders.decode(input_data, content_type)))
    return worker.Response("{} is nothing for us".format(content_type), status=400)

def predict_fn(input_data, model):
    if isinstance(input_data, worker.Response):
        return input_data
    return [[model * x for x in row] for row in input_data]

def output_fn(prediction, accept):
    if isinstance(prediction, worker.Response):
        return prediction
    if accept == "application/json":
        instances = [{"features": row} for row in prediction]
        return worker.Response(json.dumps({"instances": instances}), accept, mimetype=accept)
    elif accept == "text/csv":
        return worker.Response(encoders.encode(prediction, accept), mimetype=accept)
    raise RuntimeError("{} accept type is not supported by this script.".format(accept))

def execution_parameters_fn():
    return worker.Response(json.dumps({"MaxPayloadInMB": 5}))
"""


@container
def test_handlers_with_context(image: str, ml: Path) -> None:
    with Server(image, ml, WITH_CONTEXT) as server:
        answer = server.invoke(b"[[1, 2], [3, 4]]")
        assert (answer.json(), answer.headers["X-Rows"]) == ([[3.0], [7.0]], "2")
        answer = server.invoke(b"1,2\n3,4\n", Content_Type="text/csv", Accept="text/csv")
        assert (answer.text, answer.headers["Content-Type"]) == ("3.0\n7.0\n", "text/csv")
        refused = server.invoke(b"[[1]]")
        assert (refused.status_code, refused.json()["message"]) == (422, "1 rows are too few")
        assert server.invoke(b"[[1], [2]]", Accept="image/png").status_code == 415


@container
def test_handlers_without_context(image: str, ml: Path) -> None:
    with Server(image, ml, WITHOUT_CONTEXT) as server:
        assert server.invoke(b'{"inputs": [1, 2]}').json() == [1.0, 2.0]
        assert server.invoke(b"3,4", Content_Type="text/csv").json() == [3.0, 4.0]
        refused = server.invoke(b'{"inputs": []}')
        assert (refused.status_code, refused.json()["message"]) == (400, "no inputs")
        refused = server.invoke(b"x", Content_Type="image/png")
        assert refused.status_code == 415
        assert "image/png" in refused.json()["message"]
        assert "Traceback" not in server.log().output


@container
def test_a_transform_fn_that_encodes(image: str, ml: Path) -> None:
    with Server(image, ml, TRANSFORM) as server:
        answer = server.invoke(b"1,2\n3,4\n5,6\n", Content_Type="text/csv", Accept="text/plain")
        assert (answer.json(), answer.headers["Content-Type"]) == ({"count": 3}, "application/json")


@container
def test_handlers_with_responses_of_sagemaker_containers(image: str, ml: Path) -> None:
    with Server(image, ml, WITH_RESPONSES) as server:
        answer = server.invoke(b"1,2\n3,4\n", Content_Type="text/csv; charset=utf-8")
        assert answer.json() == {"instances": [{"features": [2.0, 4.0]}, {"features": [6.0, 8.0]}]}
        assert answer.headers["Content-Type"] == "application/json"
        answer = server.invoke(b"[[1, 2]]", Accept="text/csv")
        assert (answer.text, answer.headers["Content-Type"]) == ("2.0,4.0\n", "text/csv; charset=utf-8")
        refused = server.invoke(b"x", Content_Type="image/png")
        assert (refused.status_code, refused.text) == (400, "image/png is nothing for us")
        assert server.invoke(b"x", Content_Type="application/x-npy").status_code == 415
        assert "Traceback" not in server.log().output
        assert server.get("/execution-parameters").json() == {"MaxPayloadInMB": 5}


@container
@pytest.mark.parametrize("package", ["sagemaker_inference", "sagemaker_containers"])
def test_the_package_itself_comes_first(image: str, ml: Path, package: str) -> None:
    write_handlers(ml, "")
    (ml / f"model/code/{package}.py").write_text("version = 'their own'\n")
    source = f"""
    import {package}
    def model_fn(model_dir):
        return {package}.version
    def predict_fn(data, model):
        return model
    """
    with Server(image, ml, source) as server:
        assert server.invoke().json() == "their own"


@pytest.fixture
def toolkit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The decoder and encoder, imported beside numpy, which the image leaves to its users."""
    monkeypatch.syspath_prepend(str(ROOT / "runtime/shims"))
    from sagemaker_inference import decoder, encoder, errors

    assert str(ROOT) in decoder.__file__
    yield decoder.decode, encoder.encode, errors
    for name in [
        name for name in sys.modules if name.startswith(("sagemaker_inference", "sagemaker_containers"))
    ]:
        del sys.modules[name]


def test_bodies_become_the_arrays_of_the_toolkit(toolkit: Any) -> None:
    decode, _, errors = toolkit
    assert decode("[[1, 2], [3, 4]]", "application/json").shape == (2, 2)
    assert decode('{"a": 1}', "application/json").item() == {"a": 1}
    assert decode("1,2\n3,4\n", "text/csv").tolist() == [[1, 2], [3, 4]]
    assert decode(b"1,2,3", "text/csv; header=absent").tolist() == [1, 2, 3]
    array = io.BytesIO()
    numpy.save(array, numpy.eye(2))
    assert (decode(array.getvalue(), "application/x-npy") == numpy.eye(2)).all()
    with pytest.raises(errors.UnsupportedFormatError):
        decode(b"", "image/png")


def test_predictions_become_the_text_of_the_toolkit(toolkit: Any) -> None:
    _, encode, errors = toolkit
    assert encode(numpy.array([[1.5, 2], [3, 4]]), "text/csv") == "1.5,2.0\n3.0,4.0\n"
    assert encode({"a": numpy.float64(1.5)}, "application/json").replace(" ", "") == '{"a":1.5}'
    encoded = encode([1, 2], "application/x-npy")
    assert numpy.load(io.BytesIO(encoded)).tolist() == [1, 2]
    with pytest.raises(errors.UnsupportedFormatError):
        encode([1], "text/plain")


def test_sagemaker_containers_has_functions_for_each_type(toolkit: Any) -> None:
    from sagemaker_containers.beta.framework import encoders

    array = numpy.array([[1.5, 2], [3, 4]])
    for kind in ("csv", "json", "npy"):
        encoded = getattr(encoders, f"array_to_{kind}")(array)
        assert getattr(encoders, f"{kind}_to_numpy")(encoded).tolist() == array.tolist()
