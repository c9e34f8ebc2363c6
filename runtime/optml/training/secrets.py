"""Keep secrets out of what is printed and written: by the name that holds them, and wherever the
value turns up."""

from __future__ import annotations

import os

from ..report import MASK, is_secret
from .record import Record

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

# A shorter text, or a number, turns up in places that have nothing to do with the secret.
_SHORTEST = 6


def without_secrets(value: Any) -> Any:
    """The same value, with what stands under a secret's name masked, at any depth."""
    if isinstance(value, Record):
        value = value.as_dict()
    if isinstance(value, dict):
        return {
            key: MASK if is_secret(str(key)) and item not in (None, "") else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value


def secret_values(hyperparameters: dict[str, Any], environ: Mapping[str, str] = os.environ) -> list[str]:
    """Every secret text that the job holds, longest first, to be masked wherever it turns up."""
    found = {*_texts_of_secrets(hyperparameters), *_texts_of_secrets(environ)}
    return sorted((text for text in found if _is_telling(text)), key=len, reverse=True)


def mask(text: str, secrets: list[str]) -> str:
    """The text without these secrets and without the password of any `scheme://user:password@host`."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    if "@" in text and "://" in text:
        import re  # costs milliseconds, and such texts are rare

        text = re.sub(r"(\w://)[^\s/@]+@", rf"\1{MASK}@", text)
    return text


def mask_command(argv: list[str], secrets: list[str]) -> str:
    """A command line as it may be printed: `--api-key ******`, `--token=******`."""
    shown = []
    hide_next = False
    for argument in argv:
        option, equals, value = argument.partition("=")
        names_secret = option.startswith("-") and is_secret(option)
        if hide_next and argument and not argument.startswith("--"):
            argument = MASK
        elif names_secret and equals and value:
            argument = f"{option}={MASK}"
        hide_next = names_secret and not equals
        shown.append(_quoted(mask(argument, secrets)))
    return " ".join(shown)


def _texts_of_secrets(value: Any, secret: bool = False) -> Iterator[str]:
    if hasattr(value, "items"):
        for key, item in value.items():
            yield from _texts_of_secrets(item, secret or is_secret(str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _texts_of_secrets(item, secret)
    elif secret and value is not None:
        yield str(value)


def _is_telling(text: str) -> bool:
    return len(text) >= _SHORTEST and not text.replace(".", "", 1).isdecimal()


def _quoted(argument: str) -> str:
    """As a shell would need it, if it needed it (shlex imports too much)."""
    plain = argument and all(char.isalnum() or char in "@%+=:,./_-*" for char in argument)
    return argument if plain else "'" + argument.replace("'", "'\"'\"'") + "'"
