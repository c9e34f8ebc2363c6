"""Keep secrets out of what is printed and written: by name, and wherever the value occurs."""

from __future__ import annotations

import os

from ..hints import Any, Iterator, Mapping
from ..report import MASK, is_secret
from . import jsontext
from .record import Record

# A shorter value also occurs in text that has nothing to do with the secret.
_SHORTEST = 6


def without_secrets(value: Any) -> Any:
    """The same value, with whatever has a secret's name masked, at any depth."""
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
    """Every form in which a secret of the job may occur, longest first."""
    secrets = {*_texts_of_secrets(hyperparameters), *_texts_of_secrets(environ)}
    # The lines of a text may be printed separately.
    pieces = {piece.strip() for secret in secrets for piece in (secret, *secret.splitlines())}
    forms = {form for piece in pieces if _is_telling(piece) for form in _forms(piece)}
    return sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True)


def mask(text: str, secrets: list[str]) -> str:
    """The text without these secrets and without the password of any `scheme://user:password@host`.

    Mask before truncating, which may leave half a secret that nothing recognizes.
    """
    for secret in secrets:
        if secret in text and secret.replace(".", "", 1).isdecimal():
            import re  # takes milliseconds, and is rarely needed, as below

            # Digits within a longer number are another number.
            text = re.sub(rf"(?<!\d)(?<!\d\.){re.escape(secret)}(?!\.?\d)", MASK, text)
        else:
            text = text.replace(secret, MASK)
    if "@" in text and "://" in text:
        import re

        # A password may contain a `/`, but `host:8080/path@version` has no password.
        text = re.sub(r"(\w://)(?:[^\s/@:]+|[^\s/@:]*:(?!\d+/)[^\s@\"']*)@", rf"\1{MASK}@", text)
    return text


def mask_command(argv: list[str], secrets: list[str]) -> str:
    """A command line that is safe to print."""
    return " ".join(map(quoted, masked_words(argv, secrets)))


def masked_words(argv: list[str], secrets: list[str]) -> list[str]:
    """Its words without secrets: `--api-key ******`, `--token=******`, `--keys ****** ******`."""
    shown = []
    hidden = first = False
    for argument in argv:
        option, equals, value = argument.partition("=")
        if hidden and argument and not argument.startswith("--" if first else "-"):
            argument, first = MASK, False
        elif option.startswith("-") and is_secret(option):
            argument = f"{option}={MASK}" if equals and value else argument
            hidden = first = not equals
        else:
            hidden = first = False
        shown.append(mask(argument, secrets))
    return shown


def _texts_of_secrets(value: Any, secret: bool = False) -> Iterator[str]:
    if hasattr(value, "items"):
        for key, item in value.items():
            yield from _texts_of_secrets(item, secret or is_secret(str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _texts_of_secrets(item, secret)
    elif secret and value is not None:
        yield str(value)
        if str(value).startswith("{"):  # a key file, as of a cloud
            yield from _texts_of_secrets(jsontext.decode(str(value)))


def _is_telling(text: str) -> bool:
    """Whether this text is itself secret: a path may only have the name of what it leads to."""
    if text.startswith("-----") or len(text) < _SHORTEST:  # a PEM header
        return False
    return not (text.startswith("/") and os.path.exists(text))


def _forms(text: str) -> Iterator[str]:
    """The text as it is, and escaped in Python and JSON strings, in URLs and in base64."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate, which no argument can carry
        raw = text.encode("utf-8", "surrogatepass")
    written = {text}
    for _ in range(2):  # and in a string within a string
        written |= {form for each in written for form in _escaped(each)}
    yield from written
    yield repr(raw)[2:-1]
    for unreserved in ("-._~", "-._~/"):
        quoted = "".join(_percent(byte, unreserved) for byte in raw)
        yield from (quoted, quoted.replace("%20", "+"))
    yield from _base64(raw)


def _escaped(text: str) -> Iterator[str]:
    yield repr(text)[1:-1]
    yield repr(f'"{text}')[2:-1]  # in a string that has double quotes
    yield jsontext.dumps(text)[1:-1]
    yield text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")  # JSON in UTF-8


def _percent(byte: int, unreserved: str) -> str:
    char = chr(byte)
    return char if (char.isascii() and char.isalnum()) or char in unreserved else f"%{byte:02X}"


def _base64(raw: bytes) -> Iterator[str]:
    """The base64 of these bytes, alone and after others, as in `Authorization: Basic`."""
    from binascii import b2a_base64

    for before in range(3):
        code = b2a_base64(bytes(before) + raw, newline=False).decode()
        # Six bits are a character. Those at the ends depend on the bytes beside them.
        inner = code[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        for form in (code.rstrip("="), inner) if before == 0 else (inner,):
            yield from (form, form.replace("+", "-").replace("/", "_"))


def quoted(argument: str) -> str:
    """As a shell would need it, if it needed it (shlex imports too much)."""
    plain = argument and all(char.isalnum() or char in "@%+=:,./_-*" for char in argument)
    return argument if plain else "'" + argument.replace("'", "'\"'\"'") + "'"
