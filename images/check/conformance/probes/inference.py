# Handlers in the toolkits' convention that do what the request says.
# Line 1 of the file that the image runs is `PLAN = {…}`.
import json
import os
import time


def model_fn(model_dir, *context):
    if PLAN.get("fail"):
        raise RuntimeError("conformance: this model cannot be loaded")
    time.sleep(PLAN.get("load", 0))
    return {"directory": model_dir}


def input_fn(body, content_type, *context):
    return body.encode() if isinstance(body, str) else bytes(body)


def predict_fn(data, model, *context):
    size = len(data)
    try:
        call = json.loads(data) if size < 1000 else {}
    except ValueError:
        call = {}
    call = call if isinstance(call, dict) else {}
    if "sleep" in call:
        time.sleep(call["sleep"])
    if "raise" in call:
        raise ValueError("conformance: this call goes wrong")
    if "die" in call:
        os._exit(9)
    answer = {"conformance": PLAN.get("name", "probe"), "size": size, "call": call}
    if "attributes" in call:
        answer["attributes"] = _attributes(context[0]) if context else None
    if "set-attributes" in call and context:
        _set_attributes(context[0], call["set-attributes"])
    if "chunks" in call:
        return (str(n) + "\n" for n in _slowly(call["chunks"]))
    return answer


def output_fn(prediction, accept, *context):
    if isinstance(prediction, dict):
        return json.dumps(prediction)
    return prediction


def stream_fn(stream, model):
    for message in stream:
        stream.send(message)


def _slowly(count):
    for n in range(count):
        if n:
            time.sleep(1)
        yield n


def _set_attributes(context, value):
    """As handlers for the usual toolkits do."""
    name = "X-Amzn-SageMaker-Custom-Attributes"
    try:
        context.set_response_header(0, name, value)
    except AttributeError:
        context.response_headers[name] = value


def _attributes(context):
    """The request's custom attributes, in whichever of the usual ways the context provides them."""
    name = "X-Amzn-SageMaker-Custom-Attributes"
    for way in (
        lambda: context.get_request_header(0, name),
        lambda: context.request_headers[name],
        lambda: context.headers[name],
    ):
        try:
            found = way()
        except Exception:
            continue
        if found:
            return found
    return None
