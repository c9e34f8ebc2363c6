"""Handlers that lie in S3 or in an archive: SAGEMAKER_SUBMIT_DIRECTORY."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.archives import archive
from tests.support.docker import HARDENED, run
from tests.support.s3 import BUCKET, S3, SERVER

from .serving import ECHO, Server

pytestmark = pytest.mark.image("cpu-serve")

FROM_ARCHIVE = ECHO.replace("return data", "return [data, __file__]")


@pytest.mark.parametrize("hardened", [True, False])
def test_code_from_s3_is_fetched_once(image: str, ml: Path, s3: S3, hardened: bool) -> None:
    s3.put("sourcedir.tar.gz", archive(mnist=FROM_ARCHIVE))
    where = {
        "SAGEMAKER_SUBMIT_DIRECTORY": f"s3://{BUCKET}/sourcedir.tar.gz",
        "SAGEMAKER_PROGRAM": "mnist.py",
        "SAGEMAKER_MODEL_SERVER_WORKERS": 2,
    }
    with Server(image, ml, ECHO, SERVER, hardened=hardened, **s3.variables, **where) as server:
        data, file = server.invoke(b"[1]").json()
        assert data == [1] and file.endswith("/mnist.py")
        assert server.log().output.count("s3://") == 1
        uid = 12345 if hardened else 1000  # as always, since that user can read the code
        assert f"Uid:\t{uid}" in server.exec("cat", f"/proc/{server.workers()[-1]}/status").stdout


def test_code_that_the_platform_has_unpacked_is_not_fetched(image: str, ml: Path) -> None:
    with Server(image, ml, SAGEMAKER_SUBMIT_DIRECTORY="s3://nowhere/sourcedir.tar.gz") as server:
        assert server.invoke(b"[1]").json() == [1]


def test_a_local_archive_is_unpacked(image: str, ml: Path) -> None:
    (ml / "model/user_code.tar.gz").write_bytes(archive(own=FROM_ARCHIVE))
    where = {
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/user_code.tar.gz",
        "SAGEMAKER_PROGRAM": "own.py",
    }
    with Server(image, ml, **where) as server:
        assert server.invoke(b"[1]").json()[0] == [1]


def test_what_cannot_be_fetched_is_one_line(image: str, ml: Path, s3: S3) -> None:
    mount = f"--volume={ml}/model:/opt/ml/model:ro"
    (ml / "model/broken.tar.gz").write_bytes(b"no archive")
    for submitted, said in (
        (f"s3://{BUCKET}/none.tar.gz", f"there is nothing at s3://{BUCKET}/none.tar.gz"),
        ("/opt/ml/model/broken.tar.gz", "/opt/ml/model/broken.tar.gz is no tar archive"),
    ):
        variables = {**s3.variables, "SAGEMAKER_SUBMIT_DIRECTORY": submitted}
        options = (*HARDENED, mount, SERVER, *(f"--env={name}={value}" for name, value in variables.items()))
        result = run(image, "serve", options=options)
        errors = [line for line in result.stderr.splitlines() if line.startswith("optml: error: ")]
        assert result.code == 1 and len(errors) == 1 and said in errors[0], result.stderr
        assert "Traceback" not in result.stderr
