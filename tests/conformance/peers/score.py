"""Checks images of other toolkits that keep the contract, and writes the table of docs/check.md.

Run it by hand from the top of the repository: `.venv/bin/python -m tests.conformance.peers.score`. It fetches
the peers with pip, and nginx and a JRE with Debian's apt. What cannot be fetched is named and left out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench import contenders
from tests.bench.contenders import ENVIRONMENTS, JRE, VARIANT
from tests.support.marks import write_between
from tests.support.matrix import ROOT

WORK = ROOT / "build" / "conformance-peers"
DOCUMENT = ROOT / "docs" / "check.md"
BEGIN, END = "<!-- peers: written by tests/conformance/peers/score.py -->\n", "<!-- peers: end -->\n"
BASE = f"optml/base:{VARIANT}"
LEVELS = ("required", "recommended", "hardened")
PAYLOAD = "--payload=tests/conformance/peers/payload.json"
PEERS: dict[str, tuple[list[str], list[str], list[str]]] = {
    # folder: what pip gives, what apt gives, options of the check
    "flask": (["flask"], [], [PAYLOAD]),
    # gunicorn's gevent workers import packaging.
    "decision-tree": (["flask", "gunicorn", "gevent", "packaging"], ["nginx", "nginx-common"], [PAYLOAD]),
    "sagemaker-training": (ENVIRONMENTS["sagemaker-training"], [], ["--train"]),
    "sagemaker-inference": (ENVIRONMENTS["mms"], [JRE], ["--serve"]),
}
OURS: dict[str, list[str]] = {"optml/cpu-serve": [], "optml/cpu-train": ["--train"]}


def main(names: list[str]) -> int:
    WORK.mkdir(parents=True, exist_ok=True)
    for name in names or [*PEERS, *OURS]:
        try:
            check(name, f"{name}:{VARIANT}" if name in OURS else built(name))
        except (LookupError, subprocess.CalledProcessError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    write_between(DOCUMENT, BEGIN, END, table())
    return 0


def built(name: str) -> str:
    """The image of a peer."""
    context = WORK / name
    debs = context / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    packages, debian, _ = PEERS[name]
    if failure := contenders.fetch(context / "wheels", packages):
        raise LookupError(failure)
    if debian and not list(debs.glob("*.deb")):
        subprocess.run(["apt-get", "download", *debian], cwd=debs, check=True)
    for path in (ROOT / "tests/conformance/peers" / name).iterdir():
        shutil.copy(path, context)
    image = f"optml-peer/{name}"
    build = ["docker", "build", "--quiet", "-t", image, "--build-arg", f"BASE={BASE}"]
    subprocess.run([*build, "--build-arg", f"PACKAGES={' '.join(packages)}", context], check=True)
    return image


def check(name: str, image: str) -> None:
    """Check all clauses of all levels. The result is kept, so that images can be checked one by one."""
    result(name).unlink(missing_ok=True)
    command = [
        ROOT / "scripts/check",
        image,
        "--level=hardened",
        "--start-timeout=60",
        f"--json={result(name)}",
    ]
    options = OURS[name] if name in OURS else PEERS[name][2]
    subprocess.run([*command, *options], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)


def result(name: str) -> Path:
    return WORK / f"{name.replace('/', '-')}.json"


def table() -> str:
    """How many of the checked clauses are kept, by level; how many were not checked, and which are broken."""
    lines = [
        "| image | required | recommended | hardened | not checked | broken |",
        "|---|---|---|---|---|---|",
    ]
    for name in (n for n in (*OURS, *PEERS) if result(n).exists()):
        found = json.loads(result(name).read_text())["clauses"]
        cells = []
        for level in LEVELS:
            states = [c["state"] for c in found if c["level"] == level and c["state"] != "not checked"]
            cells.append(f"{states.count('kept')} of {len(states)}")
        broken = ", ".join(c["id"] for c in found if c["state"] == "broken") or "none"
        unchecked = sum(c["state"] == "not checked" for c in found)
        lines.append(f"| {name} | {' | '.join(cells)} | {unchecked} | {broken} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
