"""Slurm's compressed lists of nodes."""

from __future__ import annotations

from ..report import UserError


def expand(names: str, most: int) -> list[str]:
    """The nodes of a compressed list such as `a,gpu[01-03,7]n[1-2]`, `most` of them at most.

    https://slurm.schedmd.com/scontrol.html#OPT_hostnames
    """
    if len(names.split()) > 1:
        raise UserError(f"the list of nodes {names!r} has spaces; pass SLURM_* as Slurm sets them")
    found: list[str] = []
    for name in _split(names.strip()):
        head, opening, rest = name.partition("[")
        inside, closing, tail = rest.partition("]")
        if not opening:
            found.append(name)
        elif closing:
            tails = expand(tail, most) if tail else [""]
            found.extend(f"{head}{number}{end}" for number in _numbers(inside, most) for end in tails)
        else:
            raise UserError(
                f"the list of nodes {names!r} has a [ without a ]; pass SLURM_* as Slurm sets them"
            )
    return found[:most]


def _split(names: str) -> list[str]:
    """The parts between commas that stand outside of brackets."""
    parts, depth = [""], 0
    for char in names:
        depth += (char == "[") - (char == "]")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part for part in parts if part]


def _numbers(ranges: str, most: int) -> list[str]:
    found: list[str] = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal() and len(first + last) < 30):
            raise UserError(f"[{ranges}] in the list of nodes is no range; pass SLURM_* as Slurm sets them")
        end = min(int(last or first), int(first) + most)
        found.extend(f"{number:0{len(first)}d}" for number in range(int(first), end + 1))
    return found[:most]
