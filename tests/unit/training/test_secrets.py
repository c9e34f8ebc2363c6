"""Secrets are never printed, and nothing else is masked."""

from __future__ import annotations

import base64
import json
import string
import subprocess
import sys
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from optml.report import is_secret
from optml.training import outcome
from optml.training.secrets import mask, mask_command, secret_values, without_secrets
from optml.training.supervisor import Ended
from tests.unit.training.conftest import RUNTIME, Ml

SECRETS = secret_values(
    {"api_key": "abc123", "nested": {"db_password": "hunter2"}, "key_dim": 64}, {"HF_TOKEN": "hf_tok"}
)


@pytest.mark.parametrize(
    "word",
    [
        "secret",
        "PASSWORD",
        "api_key",
        "hf-token",
        "private",
        "credentials",
        "apiKey",
        *("dbPassword", "DBPassword", "HFToken", "SSHKey", "JWTToken", "WANDBKey", "openAIKey", "APIKEYs"),
        "HF_TOKEN_2",
        "access_tokens",
    ],
)
def test_a_name_of_a_secret(word: str) -> None:
    assert without_secrets({"a": {word: "x"}, "b": [{word: 1}], "plain": "x"}) == {
        "a": {word: "******"},
        "b": [{word: "******"}],
        "plain": "x",
    }


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer",
        *("HFTokenizer", "MAXTokens", "BPETokenPath", "USKeyboard", "QKKeyDim", "KEYName"),
        "s3_key_prefix",
        "keyboard",
        "max_tokens",
        "num_keys",
        "monkey",
        "key_dim",
        "KEY_FILE",
        "accredited",
    ],
)
def test_a_name_that_is_not_of_a_secret(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize("name", ["DBPassword", "HFToken", "SSHKey", "WANDBKey", "openAIKey", "APIkey"])
def test_an_acronym_is_a_word_of_a_name(name: str) -> None:
    assert is_secret(name)


def test_a_lone_surrogate_is_not_an_internal_error() -> None:
    assert secret_values({"api_key": "abcdef\ud800"}, {})


NAMES = st.lists(st.sampled_from(["main", "node", "model", "s3", "hf", "v2"]), max_size=3)
SPELLED = st.sampled_from([str.upper, str.lower, str.title])
SIGNS = st.sampled_from("_-. ")
HOLDS = st.sampled_from(["secret", "password", "key", "token", "private", "cred", "credentials"])
SPEAKS = st.sampled_from(
    ["path", "name", "file", "prefix", "ip", "ipv4_address", "dns", "dns_name", "arn", "size"]
)


@given(
    before=NAMES, word=HOLDS, after=st.sampled_from(["", "2", "id", "base64"]), sign=SIGNS, spelled=SPELLED
)
def test_any_name_that_ends_in_a_secret_word_is_of_a_secret(before, word, after, sign, spelled) -> None:  # type: ignore[no-untyped-def]
    assert is_secret(spelled(sign.join([*before, word, *filter(None, [after])])))


@given(before=NAMES, word=HOLDS, about=SPEAKS, sign=SIGNS, spelled=SPELLED)
def test_no_name_that_only_describes_a_secret_is_of_one(before, word, about, sign, spelled) -> None:  # type: ignore[no-untyped-def]
    assert not is_secret(spelled(sign.join([*before, word, about])))


def test_a_value_is_masked_wherever_it_occurs() -> None:
    assert mask("abc123 hunter2 hf_tok 64", SECRETS) == "****** ****** ****** 64"


def test_a_secret_within_another_leaves_no_part_of_that() -> None:
    secrets = secret_values(
        {}, {"A_TOKEN": "hunter2", "B_TOKEN": "hunter2-and-more", "C_TOKEN": "my-hunter2"}
    )
    assert mask("hunter2 hunter2-and-more my-hunter2", secrets) == "****** ****** ******"


def test_the_pem_header_of_a_key_is_not_secret() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"
    text = "-----BEGIN PRIVATE KEY----- is missing"
    assert mask(text, secret_values({}, {"SSH_PRIVATE_KEY": key})) == text


FORMS = {
    "raw": str,
    "repr": repr,
    "repr of a list": lambda secret: repr([secret, "'\""]),
    "repr of a text around it": lambda secret: repr(f'it\'s "{secret}"'),
    "repr of bytes": lambda secret: repr(secret.encode()),
    "json": json.dumps,
    "json in utf-8": lambda secret: json.dumps(secret, ensure_ascii=False),
    "json in json": lambda secret: json.dumps(json.dumps({"x": secret})),
    "repr of json": lambda secret: repr(json.dumps([secret])),
    "url": lambda secret: quote(secret, safe=""),
    "path of a url": quote,
    "form": quote_plus,
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 of a url": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
}

LINES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Zs", "Cs", "Cf"]), min_size=8
).filter(lambda text: not text.startswith("/"))
AROUND = st.text(string.ascii_letters + " .,;:=\n", max_size=40)


@given(secret=LINES, form=st.sampled_from(sorted(FORMS)), before=AROUND, after=AROUND)
def test_a_secret_is_never_shown(secret: str, form: str, before: str, after: str) -> None:
    assume(not set(secret) <= set("*0123456789."))  # those have their own test
    written = FORMS[form](secret)
    shown = mask(f"{before} {written} {after}", secret_values({"api_key": secret}, {}))
    assert written not in shown
    assert secret not in shown.replace(before, "").replace(after, "")


@given(user=st.text(string.ascii_letters, min_size=1, max_size=9), secret=LINES)
def test_a_secret_is_never_shown_in_a_request_header(user: str, secret: str) -> None:
    code = base64.b64encode(f"{user}:{secret}".encode()).decode()
    shown = mask(f"Basic {code}", secret_values({}, {"TOKEN": secret})).removeprefix("Basic ")
    # What remains is the user's name, and at either end a character with some bits of the secret.
    assert len(shown.replace("******", "")) <= (len(user) + 1) * 8 // 6 + 5


@given(
    lines=st.lists(LINES, min_size=2, max_size=5),
    form=st.sampled_from(["raw", "repr", "json", "json in json"]),
)
def test_no_line_of_a_key_is_shown(lines: list[str], form: str) -> None:
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----"])
    shown = mask(FORMS[form](key), secret_values({}, {"SSH_PRIVATE_KEY": key}))
    for line in lines:
        assert line not in shown.replace("-----BEGIN PRIVATE KEY-----", "").replace(
            "-----END PRIVATE KEY-----", ""
        )


@given(number=st.integers(100_000, 10**12), before=AROUND, after=AROUND)
def test_a_number_is_masked_if_it_stands_alone(number: int, before: str, after: str) -> None:
    secrets = secret_values({"password": number}, {})
    assert mask(f"{before} {number} {after}", secrets) == f"{before} ****** {after}"
    assert mask(f"1{number} {number}7 3.{number}", secrets) == f"1{number} {number}7 3.{number}"


@given(text=st.text(), secret=st.uuids())
def test_what_is_not_secret_is_never_changed(text: str, secret: object) -> None:
    assume("://" not in text)
    assert mask(text, secret_values({"api_key": str(secret)}, {"PATH": text, "HOME": "/root"})) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer", "bert-base"),
        ("s3_key_prefix", "/opt/ml"),
        ("secret", "/usr/bin"),
        ("password", "word"),
        ("key", True),
    ],
)
def test_paths_and_words_are_never_mangled(name: str, value: object) -> None:
    text = "bert-base in /opt/ml and /usr/bin/env: word, True"
    assert mask(text, secret_values({name: value}, {})) == text


def test_the_fields_of_a_key_file_are_masked_separately() -> None:
    file = json.dumps({"project_id": "my-project", "private_key": "first-line\nsecond-line"})
    shown = mask("my-project: first-line, second-line", secret_values({}, {"GOOGLE_CREDENTIALS": file}))
    assert shown == "my-project: ******, ******"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("from https://aws:tok3n@host/simple", "from https://******@host/simple"),
        ("postgres://u:p/w@host/db", "postgres://******@host/db"),
        ("redis://:p@host and https://tok3n@host", "redis://******@host and https://******@host"),
        ("https://host:8080/path@1 https://host/a@b", "https://host:8080/path@1 https://host/a@b"),
        ("s3://bucket/key, me@example.org", "s3://bucket/key, me@example.org"),
    ],
)
def test_a_password_in_a_url_is_masked(text: str, shown: str) -> None:
    assert mask(text, []) == shown


@given(
    secret=st.text(string.ascii_letters + string.digits, min_size=12, max_size=60), at=st.integers(0, 1100)
)
def test_truncating_a_reason_leaves_no_part_of_a_secret(secret: str, at: int) -> None:
    assume(len(set(secret)) > 4)
    output = "Traceback (most recent call last):\nValueError: x\n" + "-" * at + secret + "-" * 1100
    ended = Ended(code=1, signal=0, stopped=0, tail=output[: 1100 + at], lost=None)
    reason = outcome.reason("train.py", ended, 0, secret_values({"token": secret}, {}))
    for start in range(len(secret) - 6):
        assert secret[start : start + 6] not in reason


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["python3", "t.py", "--api-key", "x y"], "python3 t.py --api-key ******"),
        (["python3", "--token=abc", "--epochs", "3"], "python3 --token=****** --epochs 3"),
        (["run", "--flag-key", "--epochs", "3"], "run --flag-key --epochs 3"),
        (["run", "--access_tokens", "a1b2c", "d4e5f", "-k", "3"], "run --access_tokens ****** ****** -k 3"),
        (["run", "--password", "-1234", "--tokenizer", "bert"], "run --password ****** --tokenizer bert"),
        (["run", "--c", '{"db_password": "hunter2"}'], """run --c '{"db_password": "******"}'"""),
        (["run", "", "a'b"], "run '' 'a'\"'\"'b'"),
    ],
)
def test_command_line(argv: list[str], shown: str) -> None:
    assert mask_command(argv, SECRETS) == shown


@pytest.mark.parametrize("style", ["toolkit", "json", "flags"])
def test_a_short_secret_within_an_object_is_not_in_the_command_line(ml: Ml, style: str) -> None:
    ml.config("hyperparameters.json", {"db": '{"password": "ab12", "user": "x"}', "epochs": "3"})
    ml.code("train.py", "import sys; print(sys.argv[2])")
    done = ml.train("--more", "ab1", SAGEMAKER_HYPERPARAMETER_STYLE=style)
    assert (done.returncode, "ab12" in done.stdout) == (0, True)  # the program gets it
    assert "ab12" not in done.stderr
    (command,) = [line for line in done.stderr.splitlines() if line.startswith("optml: $ ")]
    assert command.endswith("--epochs 3 --more ab1") and "******" in command


def test_an_internal_error_reveals_no_secret(ml: Ml) -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from optml.training import train\n"
        "train.prepare_output = lambda: {}[f'https://{os.environ[\"API_TOKEN\"]}/']\n"
        "sys.exit(train.train([]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(RUNTIME.parents[1])],
        env=ml.environment(API_TOKEN="hunter2-is-it"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert ml.failure == "optml itself failed: KeyError: 'https://******/'; please report it"
    assert "hunter2" not in done.stdout + done.stderr
