"""The page for people in a real browser: fill in its form, send it, and read the answer off the page."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tests.support.http import answering

from .serving import ECHO, Models, Server, Serving, write_model

BROWSER = shutil.which("chromium-headless-shell") or shutil.which("chromium")

pytestmark = [
    pytest.mark.image("cpu-serve"),
    pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium-headless-shell"),
]

# What a person does, as a script: take the last path that the form offers, fill in the rest, and send.
FILL_IN = """
<script>
const looking = setInterval(() => {
  if (at("paths").options.length) {
    clearInterval(looking);
    at("path").value = [...at("paths").options].at(-1).value;
    at("type").value = "text/csv";
    at("body").value = "1,2\\n3,4";
    at("form").requestSubmit();
  }
}, 50);
</script>
"""


@contextmanager
def person(server: Serving) -> Iterator[str]:
    """The address of a proxy of the server that fills in and sends the form of its page."""

    class Person(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = requests.get(server.url + self.path, timeout=10)
            filled = answer.content.replace(b"</body>", FILL_IN.encode() + b"</body>")
            self.answer(answer, filled if self.path == "/" else answer.content)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name: self.headers[name] for name in ("Content-Type", "Accept")}
            answer = requests.post(server.url + self.path, data=body, headers=headers, timeout=10)
            self.answer(answer, answer.content)

        def answer(self, answer: requests.Response, body: bytes) -> None:
            self.send_response(answer.status_code)
            for name in ("Content-Type", "Content-Security-Policy"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with answering(ThreadingHTTPServer(("127.0.0.1", 0), Person)) as port:
        yield f"http://127.0.0.1:{port}/"


def shown(server: Serving, folder: Path) -> str:
    """The page as it stands after a person has sent a request and the answer has come."""
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/browser"]
    with person(server) as address:
        command = [BROWSER, *options, "--virtual-time-budget=4000", "--dump-dom", address]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_person_sends_a_request_and_reads_the_answer(image: str, ml: Path, tmp_path: Path) -> None:
    with Server(image, ml, ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        page = shown(server, tmp_path)
    assert '<dd id="state" role="status" class="good">ready</dd>' in page
    assert "[[1.0,2.0],[3.0,4.0]]</pre>" in page
    assert '<p id="status" role="status" class="good">200' in page
    assert '<dd id="recent" class="">1: median' in page


def test_a_person_sends_a_request_to_one_of_many_models(image: str, ml: Path, tmp_path: Path) -> None:
    write_model(ml, "first", ECHO)
    write_model(ml, "the second", ECHO.replace("return data", "return ['second', data]"))
    with Models(image, ml) as server:
        for name in ("first", "the second"):
            assert server.load(name).status_code == 200
        page = shown(server, tmp_path)
    assert '<dd id="model" class="">first, the second</dd>' in page
    assert '["second",[[1.0,2.0],[3.0,4.0]]]</pre>' in page
    assert 'value="/models/first/invoke"' in page  # what the form proposes
