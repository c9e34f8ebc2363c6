"""The runtime's log lines and one-line errors, on stderr, and which names are those of secrets.

`logging` is not used: importing it takes longer than starting the user's program.
"""

from __future__ import annotations

import os
import sys

_SINGULAR = {"SECRET", "PASSWORD", "PASSWD", "KEY", "APIKEY", "TOKEN", "PRIVATE", "CRED", "CREDENTIAL"}
SECRET_WORDS = _SINGULAR | {f"{word}S" for word in _SINGULAR}
# Last words of names that only describe a secret (`s3_key_prefix`), first words of counts (`max_tokens`).
_ABOUT = {"PREFIX", "PATH", "FILE", "DIR", "DIRECTORY", "FOLDER", "NAME", "COLUMN", "TYPE", "HOST", "PORT"}
_ABOUT |= {"COUNT", "DIM", "HEADS", "LEN", "LENGTH", "LIMIT", "SIZE"}
_ABOUT |= {"ADDRESS", "ARN", "DNS", "HOSTNAME", "IP", "IPV"}
_COUNTS = {"MAX", "MIN", "N", "NUM", "NUMBER", "TOTAL"}
_COUNTED = {"KEYS", "TOKENS"}
MASK = "******"


class UserError(Exception):
    """An error that the user can fix.

    The message is one line that says what is wrong, where, and what to do. It is printed without a
    traceback, and the container exits with a code other than 0.
    """


def described(error: Exception) -> str:
    """The error's text for the log and output/failure. Anything but a UserError is a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    return f"optml itself failed: {type(error).__name__}: {error}; please report it"


# So that no text passes for another log line or for a terminal escape sequence.
_HARMLESS = {ord("\n"): "\n  ", ord("\r"): "\\r", ord("\033"): "\\x1b"}


def log(line: str) -> None:
    """Write one log line. Further lines in the text are indented."""
    _write(f"optml: {line.translate(_HARMLESS)}\n")


def log_error(line: str) -> None:
    """Write one error line, red on a terminal."""
    text = f"optml: error: {line.translate(_HARMLESS)}"
    if sys.stderr is not None and sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        text = f"\033[31m{text}\033[0m"
    _write(f"{text}\n")


def is_secret(name: str) -> bool:
    """Whether a variable or hyperparameter of this name holds a secret: `HF_TOKEN` and `apiKey` do,
    `tokenizer` and `s3_key_prefix` do not."""
    upper = name.upper()
    if not any(word in upper for word in _SINGULAR):
        return False  # most names need no splitting
    parts = _parts(name)
    words = SECRET_WORDS.intersection(parts + _parts(name, acronyms=False))
    words -= _COUNTED if parts[0] in _COUNTS else set()
    return bool(words) and parts[-1] not in _ABOUT


def _parts(name: str, acronyms: bool = True) -> list[str]:
    """Its words in capitals: API and KEY for `apiKey_2`, and with `acronyms` HF and TOKEN for `HFToken`."""
    spaced, before = "", ""
    for at, char in enumerate(name):
        begins = char.isupper() and before.islower()
        if acronyms and char.isupper() and before.isupper():
            following = name[at + 1 : at + 3]  # two lower-case letters: `HFToken`, but not `IDs`
            begins = len(following) == 2 and following.isalpha() and following.islower()
        spaced += f" {char}" if begins else char if char.isalpha() else " "
        before = char
    return spaced.upper().split()


def _write(text: str) -> None:
    # One write per line, so that lines of several processes do not mix. A closed stderr must not fail
    # a job.
    try:
        os.write(2, text.encode("utf-8", "replace"))
    except OSError:
        pass
