"""A registry of one image, for clients that pull what the engine has already."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

DOCKER = "application/vnd.docker"


@contextmanager
def registry(image: str) -> Iterator[str]:
    """Serve an image of the engine's for pulling; gives the name to pull."""
    with TemporaryDirectory() as folder:
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            subprocess.run(["tar", "--extract", "--directory", folder], stdin=saved.stdout, check=True)
        with ThreadingHTTPServer(("127.0.0.1", 0), _handler(Path(folder))) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"localhost:{server.server_port}/{image}"
            server.shutdown()


def _handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    """Answers with what `docker save` left in a folder."""
    (index,) = json.loads((folder / "manifest.json").read_text())
    blobs = {}

    def descriptor(kind: str, name: str) -> dict[str, object]:
        with (folder / name).open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        blobs[digest] = folder / name
        return {"mediaType": f"{DOCKER}.{kind}", "size": (folder / name).stat().st_size, "digest": digest}

    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{DOCKER}.distribution.manifest.v2+json",
        "config": descriptor("container.image.v1+json", index["Config"]),
        "layers": [descriptor("image.rootfs.diff.tar", layer) for layer in index["Layers"]],
    }
    manifest_text = json.dumps(manifest).encode()
    manifest_digest = f"sha256:{hashlib.sha256(manifest_text).hexdigest()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "/blobs/" in self.path:
                body, digest = blobs[self.path.rpartition("/")[2]].read_bytes(), None
            elif "/manifests/" in self.path:
                body, digest = manifest_text, manifest_digest
            else:
                body, digest = b"{}", None
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            if digest:
                self.send_header("Content-Type", str(manifest["mediaType"]))
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
