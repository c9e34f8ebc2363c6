"""What is secret is printed nowhere."""

from __future__ import annotations

import pytest

from optml.training.secrets import mask, mask_command, secret_values, without_secrets

SECRETS = secret_values(
    {"api_key": "abc123", "nested": {"db_password": "hunter2"}, "key_dim": 64}, {"HF_TOKEN": "hf_tok"}
)


@pytest.mark.parametrize("word", ["secret", "PASSWORD", "api_key", "hf-token", "private", "credentials"])
def test_a_name_that_holds_a_secret(word: str) -> None:
    assert without_secrets({"a": {word: "x"}, "b": [{word: 1}], "plain": "x"}) == {
        "a": {word: "******"},
        "b": [{word: "******"}],
        "plain": "x",
    }


def test_a_value_is_masked_wherever_it_turns_up() -> None:
    assert mask("abc123 hunter2 hf_tok 64", SECRETS) == "****** ****** ****** 64"


def test_a_password_in_an_address_is_masked() -> None:
    assert mask("from https://aws:tok3n@host/simple", []) == "from https://******@host/simple"


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["python3", "t.py", "--api-key", "x y"], "python3 t.py --api-key ******"),
        (["python3", "--token=abc", "--epochs", "3"], "python3 --token=****** --epochs 3"),
        (["run", "--flag-key", "--epochs", "3"], "run --flag-key --epochs 3"),
        (["run", "--c", '{"db_password": "hunter2"}'], """run --c '{"db_password": "******"}'"""),
        (["run", "", "a'b"], "run '' 'a'\"'\"'b'"),
    ],
)
def test_command_line(argv: list[str], shown: str) -> None:
    assert mask_command(argv, SECRETS) == shown
