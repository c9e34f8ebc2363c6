"""The page for people in a real browser: its form is filled in and sent, and the answer read off the page."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from .serving import ECHO, Server

BROWSER = shutil.which("chromium")

pytestmark = [
    pytest.mark.image("cpu-serve"),
    pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium"),
]

# What a person does, in the words of the browser.
FILL_IN = """
<script>
at("type").value = "text/csv";
at("body").value = "1,2\\n3,4";
at("form").requestSubmit();
</script>
"""


@pytest.fixture
def person(server: Server) -> Iterator[str]:
    """The address of the server through somebody who fills in the form when it arrives."""

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

    with ThreadingHTTPServer(("127.0.0.1", 0), Person) as between:
        threading.Thread(target=between.serve_forever).start()
        yield f"http://127.0.0.1:{between.server_port}/"
        between.shutdown()


@pytest.fixture
def server(image: str, ml: Path) -> Iterator[Server]:
    with Server(image, ml, ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=1) as server:
        yield server


def test_a_person_sends_a_request_and_reads_the_answer(person: str, tmp_path: Path) -> None:
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser"]
    command = [BROWSER, *options, "--virtual-time-budget=4000", "--dump-dom", person]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert '<dd id="state" role="status" class="good">ready</dd>' in shown
    assert "[[1.0, 2.0], [3.0, 4.0]]</pre>" in shown
    assert '<p id="status" role="status" class="good">200' in shown
    assert '<dd id="recent" class="">1: median' in shown
