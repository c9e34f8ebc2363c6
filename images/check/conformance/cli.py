"""The command line.

Exit codes: 0 every clause that could be checked is kept; 1 a clause is broken; 2 nothing could be checked:
wrong arguments, no engine, no such image; 130 and 143 stopped by SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tarfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import requests
from docker.errors import APIError, DockerException, ImageNotFound, NullResource

from conformance import clauses, report
from conformance.clause import CLAUSES, LEVELS, Broken, Clause, NotChecked
from conformance.engine import STOPS, Engine
from conformance.report import Result
from conformance.subject import Subject
from conformance.target import Options

SOCKET = "/var/run/docker.sock"

assert clauses  # importing it fills CLAUSES


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        report.write_list(CLAUSES)
        return 0
    if options.image is None:
        parser.error("name the image to check, as in: check my-image")
    chosen = _chosen(options, parser)
    for number in STOPS:
        signal.signal(number, _stop)
    try:
        engine = Engine()
    except DockerException as error:
        remedy = f"mount its socket: -v {SOCKET}:{SOCKET}"
        if "Permission denied" in str(error):
            remedy = "run as root or with the socket's group"
        parser.error(f"no Docker Engine answers; {remedy} ({error})")
    try:
        with engine, contextlib.closing(Subject(engine, options.image, _known(options))) as subject:
            results = [_result(clause, subject) for clause in chosen]
    except (ImageNotFound, NullResource):
        parser.error(f"there is no image {options.image} on this engine; build it or `docker pull` it first")
    except APIError as error:
        parser.error(f"the Docker Engine reports: {error.explanation}")
    except requests.RequestException as error:
        parser.error(f"the Docker Engine no longer answers ({error})")
    report.write_table(options.image, results)
    for path, text in ((options.json, report.as_json), (options.junit, report.as_junit)):
        if path:
            _write(path, text(options.image, results))
    return int(any(result.state == "broken" for result in results))


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Exit, which removes the containers; further signals do not interrupt that."""
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
    print("check: stopped; removing its containers", file=sys.stderr)
    sys.exit(128 + number)


def _chosen(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Clause]:
    """The clauses selected on the command line, in the order of their declaration."""
    verbs = {v for v in ("train", "serve") if getattr(options, v)} or {"train", "serve"}
    levels = LEVELS[: LEVELS.index(options.level) + 1]
    if unknown := set(options.only or ()) - {c.id for c in CLAUSES}:
        parser.error(f"there is no clause {', '.join(sorted(unknown))}; --list shows them all")
    return [
        clause
        for clause in CLAUSES
        if clause.level in levels
        and (clause.verb is None or clause.verb in verbs)
        and not (clause.slow and options.quick)
        and (not options.only or clause.id in options.only)
    ]


def _result(clause: Clause, subject: Subject) -> Result:
    """Check one clause, and report its progress."""
    begin, state, seen = time.monotonic(), "kept", ""
    report.announce(clause)
    try:
        clause.check(subject)
    except Broken as error:
        state, seen = "broken", str(error)
    except NotChecked as error:
        state, seen = "not checked", str(error)
    except APIError as error:
        state, seen = "broken", f"the engine reports: {error.explanation}"
    except requests.RequestException:  # the engine has gone, which is not the image's fault
        raise
    except OSError as error:
        state, seen = "broken", f"{type(error).__name__}: {error}"
    except (ValueError, LookupError, TypeError, tarfile.TarError) as error:  # of an unexpected form
        state, seen = "broken", f"the response cannot be read: {error!r}"
    result = Result(clause, state, seen, time.monotonic() - begin)
    report.progress(result)
    return result


def _known(options: argparse.Namespace) -> Options:
    return Options(
        options.code,
        options.model,
        options.input,
        options.payload.read_bytes() if options.payload else None,
        options.content_type,
        dict(options.env or ()),
        options.start_timeout,
        options.train_timeout,
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        print(f"check: error: {path} cannot be written: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "check",
        description="Check a container image against the /opt/ml contract of training and serving.",
        epilog="Exit code: 0 all kept, 1 some broken, 2 nothing could be checked, 130 or 143 stopped.",
    )
    add = parser.add_argument
    add("image", nargs="?", metavar="IMAGE", help="an image that the engine has")
    add("--train", action="store_true", help="check only `docker run IMAGE train`")
    add("--serve", action="store_true", help="check only `docker run IMAGE serve`")
    add("--level", choices=LEVELS, default="recommended", help="how strict to be (recommended)")
    add("--only", action="append", metavar="ID", help="check only this clause; may be repeated")
    add("--quick", action="store_true", help="skip clauses that take most of a minute")
    add("--list", action="store_true", help="print all clauses with their sources, and exit")
    add("--code", type=_folder, metavar="DIR", help="your code, for /opt/ml/code")
    add("--model", type=_folder, metavar="DIR", help="your model, for /opt/ml/model when serving")
    add("--input", type=_folder, metavar="DIR", help="your data, for /opt/ml/input when training")
    add("--payload", type=_file, metavar="FILE", help="a request that /invocations answers with 200")
    add("--content-type", default="application/json", metavar="T", help="the type of the payload")
    add("--env", action="append", type=_variable, metavar="K=V", help="a variable for the containers")
    add("--start-timeout", type=float, default=120, metavar="S", help="seconds until /ping answers 200 (120)")
    add("--train-timeout", type=float, default=600, metavar="S", help="seconds that training may take (600)")
    add("--json", type=Path, metavar="FILE", help="write the result as JSON")
    add("--junit", type=Path, metavar="FILE", help="write the result as JUnit XML")
    return parser


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is not a file")
    return path


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
