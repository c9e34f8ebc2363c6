"""Code from S3, and intermediate output to it."""

from __future__ import annotations

import io
import socket
import tarfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tests.support.archives import archive
from tests.support.docker import Result
from tests.support.http import answering
from tests.support.s3 import BUCKET, S3, SERVER, access
from tests.support.training import Training

pytestmark = pytest.mark.image("cpu-train")


def train(training: Training, s3: S3, uri: str, **variables: str) -> Result:
    return training.train(SERVER, SAGEMAKER_SUBMIT_DIRECTORY=uri, **{**s3.variables, **variables})


def test_an_archive(training: Training, s3: S3) -> None:
    left = "import glob; print('from s3', glob.glob('/tmp/optml-*'))"
    s3.put("jobs/sourcedir.tar.gz", archive(train=left))
    done = train(training, s3, f"s3://{BUCKET}/jobs/sourcedir.tar.gz")
    assert done.code == 0, done.output
    assert done.stdout == "from s3 []\n"


@pytest.mark.parametrize("prefix", ["src", "src/"])
@pytest.mark.one_variant
def test_a_prefix(training: Training, s3: S3, prefix: str) -> None:
    s3.put("src/", b"")
    s3.put("src/train.py", "from pkg import helper; print(helper.X)")
    s3.put("src/pkg/helper.py", "X = 'helped'")
    s3.put("srcother/train.py", "")
    done = train(training, s3, f"s3://{BUCKET}/{prefix}")
    assert done.stdout == "helped\n", done.output
    assert "fetched 2 objects" in done.stderr


@pytest.mark.one_variant
def test_an_object(training: Training, s3: S3) -> None:
    s3.put("src/one.py", "print('one')")
    assert train(training, s3, f"s3://{BUCKET}/src/one.py").stdout == "one\n"


@pytest.mark.parametrize(
    ("uri", "variables", "said"),
    [
        (f"s3://{BUCKET}/absent.tar.gz", {}, f"there is nothing at s3://{BUCKET}/absent.tar.gz"),
        (f"s3://{BUCKET}/absent/", {}, "there is nothing at"),
        ("s3://absent/x.tar.gz", {}, "there is no bucket 'absent'"),
        ("s3://absent/x/", {}, "there is no bucket 'absent'"),
        ("s3://", {}, "is no S3 address"),
        (
            f"s3://{BUCKET}/x.tar.gz",
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"},
            "there are no AWS credentials",
        ),
        (f"s3://{BUCKET}/x.tar.gz", {"S3_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot reach S3"),
    ],
)
@pytest.mark.one_variant
def test_what_goes_wrong_is_one_line(
    training: Training, s3: S3, uri: str, variables: dict[str, str], said: str
) -> None:
    done = train(training, s3, uri, **variables)
    assert done.code == 1
    assert said in training.failure and "\n" not in training.failure
    assert "Traceback" not in done.output and "s3cr3t-key" not in done.output


class Moody(BaseHTTPRequestHandler):
    """An S3 that answers with the given statuses one after another, and then with a program."""

    statuses: ClassVar[list[int]]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        status = self.statuses.pop(0) if self.statuses else 200
        body = b"print('after all')" if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def moody() -> Iterator[str]:
    with answering(ThreadingHTTPServer(("0.0.0.0", 0), Moody)) as port:
        yield f"http://objects:{port}"


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ([503, 500], None),
        ([200, 503, 503], None),
        ([403] * 9, "access to s3://bucket/train.py is denied (403); give the job's role s3:GetObject"),
        ([503] * 40, "cannot transfer s3://bucket/train.py: "),
    ],
    ids=["at first", "later", "denied", "for ever"],
)
@pytest.mark.one_variant
def test_what_s3_refuses_for_a_moment_is_asked_again(
    training: Training, moody: str, statuses: list[int], said: str | None
) -> None:
    Moody.statuses = statuses
    code = "s3://bucket/train.py"
    done = training.train(SERVER, SAGEMAKER_SUBMIT_DIRECTORY=code, **access(moody))
    if said:
        assert done.code == 1
        assert training.failure.startswith(said) and "\n" not in training.failure
    else:
        assert (done.code, done.stdout) == (0, "after all\n"), done.output


@pytest.mark.one_variant
def test_an_archive_that_leaves_the_code_directory(training: Training, s3: S3) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../evil"), io.BytesIO(b""))
    s3.put("x.tar.gz", data.getvalue())
    assert train(training, s3, f"s3://{BUCKET}/x.tar.gz").code == 1
    assert "lies outside the code directory" in training.failure


def test_intermediate_output_is_copied_while_the_job_runs_and_at_its_end(training: Training, s3: S3) -> None:
    training.config("hyperparameters.json", {"sagemaker_s3_output": f"s3://{BUCKET}/out"})
    training.code(
        "train.py",
        "import os, sys, time\n"
        "out = os.environ['SM_OUTPUT_INTERMEDIATE_DIR']\n"
        "os.makedirs(f'{out}/deep', exist_ok=True)\n"
        "open(f'{out}/deep/new', 'w').write('renamed')\n"
        "os.rename(f'{out}/deep/new', f'{out}/deep/file')\n"
        "while not os.path.exists('/opt/ml/model/go'): time.sleep(0.05)\n"
        "open(f'{out}/deep/new', 'w').write('atomic!')\n"  # as long as the file that it replaces
        "os.replace(f'{out}/deep/new', f'{out}/deep/file')\n"
        "open(f'{out}/last', 'w').write('at the end')\n",
    )
    place = "out/job-1/output/intermediate"
    with training.start(SERVER, **s3.variables, TRAINING_JOB_NAME="job-1") as container:
        deadline = time.monotonic() + 30
        while s3.get(f"{place}/deep/file") != "renamed":
            assert container.running and time.monotonic() < deadline, container.log().output
            time.sleep(0.1)
        (training.root / "model/go").write_text("")
        assert container.wait() == 0
    assert s3.get(f"{place}/last") == "at the end"
    assert s3.get(f"{place}/deep/file") == "atomic!"


@pytest.mark.one_variant
def test_output_that_cannot_be_copied_does_not_fail_the_job(training: Training, s3: S3) -> None:
    training.config("hyperparameters.json", {"sagemaker_s3_output": "s3://absent/out"})
    training.code("train.py", "open('/opt/ml/output/intermediate/x', 'w').write('x')")
    done = training.train(SERVER, **s3.variables)
    assert done.code == 0
    assert "there is no bucket 'absent'" in done.stderr


@pytest.mark.one_variant
def test_what_is_no_file_is_not_copied_and_hangs_nothing(training: Training, s3: S3) -> None:
    training.config("hyperparameters.json", {"sagemaker_s3_output": f"s3://{BUCKET}/no-files"})
    training.code(
        "train.py",
        "import os, socket\n"
        "os.chdir(os.environ['SM_OUTPUT_INTERMEDIATE_DIR'])\n"
        "os.mkfifo('a-fifo'); os.symlink('a-fifo', 'a-link'); os.symlink('/dev/zero', 'device')\n"
        "socket.socket(socket.AF_UNIX).bind('a-socket')\n"
        "open('z-file', 'w').write('content')\n"
        "os.mkfifo('/opt/ml/output/data/fifo')\n",
    )
    done = training.train(SERVER, **s3.variables)
    assert done.code == 0, done.output
    assert s3.get("no-files/output/intermediate/z-file") == "content"
    names = [item["Key"] for item in s3.client.list_objects_v2(Bucket=BUCKET, Prefix="no-files/")["Contents"]]
    assert names == ["no-files/output/intermediate/z-file"]


@pytest.fixture
def silent() -> Iterator[str]:
    """An S3 that accepts every connection and never answers."""
    with socket.create_server(("0.0.0.0", 0), backlog=50) as server:
        yield f"http://objects:{server.getsockname()[1]}"


@pytest.mark.one_variant
def test_a_stop_while_s3_does_not_answer(training: Training, silent: str) -> None:
    """During the fetch, the stop is the outcome; during the last upload, the program's outcome stands."""
    code = "s3://bucket/code.tar.gz"
    with training.start(SERVER, SAGEMAKER_SUBMIT_DIRECTORY=code, **access(silent)) as container:
        container.wait_for_log("code: s3://bucket")
        time.sleep(1)
        start = time.monotonic()
        container.kill("TERM")
        assert container.wait() == 143
        assert time.monotonic() - start < 10
    assert training.failure == "stopped by signal 15 while fetching the code"

    training.config("hyperparameters.json", {"sagemaker_s3_output": "s3://bucket/out"})
    training.code(
        "train.py", "open('/opt/ml/output/intermediate/x', 'w').write('x'); print('ends'); exit(42)"
    )
    with training.start(SERVER, **access(silent)) as container:
        container.wait_for_log("ends")
        time.sleep(2)
        assert container.running
        container.kill("TERM")
        assert container.wait(timeout=10) == 42
        assert "the last changes of /opt/ml/output/intermediate may not be uploaded" in container.log().stderr
    assert "asked to stop" not in training.failure
