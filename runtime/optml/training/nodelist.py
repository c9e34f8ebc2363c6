"""Slurm's compressed lists of nodes."""

from __future__ import annotations

from ..report import UserError

_HINT = "pass SLURM_* as Slurm sets them"


def expand(names: str, most: int) -> list[str]:
    """The nodes of a compressed list such as `a,gpu[01-03,7]n[1-2]`, at most `most` of them.

    https://slurm.schedmd.com/scontrol.html#OPT_hostnames
    """
    if len(names.split()) > 1:
        raise UserError(f"the list of nodes {names!r} has spaces; {_HINT}")
    *parts, end = names.strip().split("]")
    if "[" in end or not all("[" in part for part in parts):
        raise UserError(f"the list of nodes {names!r} has brackets that do not match; {_HINT}")
    found: list[str] = []
    prefixes = [""]  # of the names not yet ended by a comma
    for part in [*parts, f"{end},"]:
        text, bracket, ranges = part.partition("[")
        first, *others = text.split(",")
        prefixes = [name + first for name in prefixes]
        if others:
            found += [*prefixes, *others[:-1]]
            prefixes = others[-1:]
        if bracket:
            numbers = _numbers(ranges, most)
            prefixes = [name + number for name in prefixes for number in numbers][:most]
    return [name for name in found if name][:most]


def _numbers(ranges: str, most: int) -> list[str]:
    found: list[str] = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        last = last or first
        if not (first.isdecimal() and last.isdecimal() and len(part) < 30):
            raise UserError(f"[{ranges}] in the list of nodes is not a range; {_HINT}")
        end = min(int(last), int(first) + most)
        found.extend(f"{number:0{len(first)}d}" for number in range(int(first), end + 1))
    return found[:most]
