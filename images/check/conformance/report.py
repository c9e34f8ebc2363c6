"""The results, for people and for CI."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree

from conformance.clause import Clause

COLOURS = {"kept": "32", "broken": "31", "not checked": "33"}


@dataclass(frozen=True)
class Result:
    clause: Clause
    state: str  # kept, broken, not checked
    seen: str
    seconds: float

    def __post_init__(self) -> None:
        """Remove what would control a terminal or is not allowed in XML: images may print anything."""
        object.__setattr__(self, "seen", "".join(c if c.isprintable() else " " for c in self.seen))


def announce(clause: Clause) -> None:
    """Show the clause that is being checked; only on a terminal, where the result overwrites it."""
    if sys.stderr.isatty():
        print(f"  … {clause.id}  {clause.sentence}\r", end="", file=sys.stderr, flush=True)


def progress(result: Result) -> None:
    erase = "\x1b[K" if sys.stderr.isatty() else ""
    print(f"{erase}{_coloured(result.state, 11, sys.stderr)} {result.clause.id}", file=sys.stderr, flush=True)


def write_table(image: str, results: list[Result]) -> None:
    """One line per clause; below it what was observed and, if it is broken, what to do."""
    width = max((len(r.clause.id) for r in results), default=0)
    print(f"\n{image}")
    for r in results:
        state = _coloured(r.state, 11, sys.stdout)
        print(f"  {state} {r.clause.id:{width}} {r.clause.level:11} {r.clause.sentence}")
        if r.state != "kept":
            print(f"  {'':11} {'':{width}} {r.seen}")
        if r.state == "broken":
            print(f"  {'':11} {'':{width}} → {r.clause.remedy}")
            print(f"  {'':11} {'':{width}} → {r.clause.source}")
    count = Counter(r.state for r in results)
    print(f"\n{count['kept']} kept, {count['broken']} broken, {count['not checked']} not checked")


def write_list(clauses: Iterable[Clause]) -> None:
    """The clauses as a table in Markdown."""
    print("| clause | level | what must hold | source |\n|---|---|---|---|")
    for c in clauses:
        print(f"| {c.id} | {c.level} | {c.sentence} | [document]({c.source}) |")


def as_json(image: str, results: list[Result]) -> str:
    found = [
        {
            "id": r.clause.id,
            "state": r.state,
            "level": r.clause.level,
            "sentence": r.clause.sentence,
            "source": r.clause.source,
            "seen": r.seen,
            "remedy": r.clause.remedy,
            "seconds": round(r.seconds, 3),
        }
        for r in results
    ]
    return json.dumps({"image": image, "clauses": found}, indent=1) + "\n"


def as_junit(image: str, results: list[Result]) -> str:
    count = Counter(r.state for r in results)
    suite = ElementTree.Element(
        "testsuite",
        name=f"conformance of {image}",
        tests=str(len(results)),
        failures=str(count["broken"]),
        skipped=str(count["not checked"]),
        errors="0",
        time=f"{sum(r.seconds for r in results):.3f}",
    )
    for r in results:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=r.clause.level,
            name=f"{r.clause.id} {r.clause.sentence}",
            time=f"{r.seconds:.3f}",
        )
        if r.state == "broken":
            failure = ElementTree.SubElement(case, "failure", message=r.seen)
            failure.text = f"{r.clause.remedy}\n{r.clause.source}"
        elif r.state == "not checked":
            ElementTree.SubElement(case, "skipped", message=r.seen)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _coloured(state: str, width: int, stream: object) -> str:
    padded = f"{state:{width}}"
    return f"\x1b[{COLOURS[state]}m{padded}\x1b[0m" if getattr(stream, "isatty")() else padded  # noqa: B009
