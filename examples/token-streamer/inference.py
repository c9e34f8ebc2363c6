"""Streams words: in one response as server-sent events, or in a session, in which the client may continue."""

import json
import random
import time
from pathlib import Path

SECONDS_PER_WORD = 0.05  # as a real model would need


def model_fn(model_dir):
    return json.loads(Path(model_dir, "model.json").read_text())


def words(model, prompt, length):
    """The words after the prompt, one by one."""
    chance = random.Random(prompt)
    word = (prompt.split() or [""])[-1]
    for _ in range(length):
        word = chance.choice(model.get(word) or list(model))
        time.sleep(SECONDS_PER_WORD)
        yield word


def predict_fn(data, model):
    return words(model, data["prompt"], int(data.get("max_tokens", 16)))


def output_fn(prediction, accept):
    return events(prediction), "text/event-stream"


def events(prediction):
    for word in prediction:
        yield f"data: {json.dumps({'token': word})}\n\n"
    yield "data: [DONE]\n\n"


def stream_fn(stream, model):
    for prompt in stream:
        for word in words(model, prompt, 16):
            stream.send(word)
        stream.send("")
