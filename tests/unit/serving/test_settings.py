"""Settings from the environment."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from optml import paths
from optml.report import UserError
from optml.serving.settings import Settings


def test_defaults() -> None:
    settings = Settings({})
    assert (settings.port, settings.workers, settings.threads, settings.timeout) == (8080, None, 1, 60.0)
    assert settings.program == "inference.py"
    assert settings.code_dirs == (f"{paths.MODEL}/code", paths.CODE)


def test_the_names_of_the_platform() -> None:
    settings = Settings(
        {
            "SAGEMAKER_BIND_TO_PORT": "9000",
            "SAGEMAKER_MODEL_SERVER_WORKERS": " 3 ",
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": "2.5",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6",
        }
    )
    assert (settings.port, settings.workers, settings.timeout) == (9000, 3, 2.5)
    assert settings.max_payload == 6 << 20


def test_where_the_code_lies() -> None:
    environ = {"SAGEMAKER_PROGRAM": "serving/handlers.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/srv/code"}
    settings = Settings(environ)
    assert settings.program == "handlers.py"
    assert settings.code_dirs[0] == "/srv/code/serving"
    # The platform has already unpacked a URL.
    remote = Settings({"SAGEMAKER_SUBMIT_DIRECTORY": "s3://bucket/sourcedir.tar.gz"})
    assert remote.code_dirs == Settings({}).code_dirs
    assert Settings({"SAGEMAKER_PROGRAM": "/srv/own.py"}).code_dirs == ("/srv", "/srv")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "65536"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "two"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "1001"),
        ("SAGEMAKER_MODEL_SERVER_THREADS", "0"),
        ("SAGEMAKER_MODEL_JOB_QUEUE_SIZE", "9" * 5000),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "nan"),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "0"),
        ("SAGEMAKER_MODEL_SERVER_PRELOAD", "maybe"),
        ("PROCESS_MAX_START_RETRIES", "²"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "loud"),
    ],
)
def test_bad_values_are_named(name: str, value: str) -> None:
    with pytest.raises(UserError) as problem:
        Settings({name: value})
    assert name in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(("text", "level"), [("", 20), ("INFO", 20), ("debug", 10), ("40", 40), ("0", 0)])
def test_the_level_of_logging_has_a_number_or_a_name(text: str, level: int) -> None:
    assert Settings({"SAGEMAKER_CONTAINER_LOG_LEVEL": text}).log_level == level


def test_many_models_have_no_application_of_the_users() -> None:
    with pytest.raises(UserError, match="SAGEMAKER_SERVING_MODULE exclude each other: unset one"):
        Settings({"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_SERVING_MODULE": "app:app"})


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, True),
        ({"SAGEMAKER_MODEL_SERVER_PAGE": "false"}, False),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}, False),
        ({"SAGEMAKER_SAFE_PORT_RANGE": "1-2", "SAGEMAKER_MODEL_SERVER_PAGE": "TRUE"}, True),
    ],
)
def test_the_page_is_off_where_the_platform_runs_us(environ: dict[str, str], shown: bool) -> None:
    assert Settings(environ).page is shown
    assert Settings(environ).metrics  # the platform scrapes them


class Noted(dict[str, str]):
    """Variables that record which of them were read."""

    def __init__(self, environ: Mapping[str, str] = {}) -> None:
        super().__init__(environ)
        self.names: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.names.add(name)
        return super().get(name, default)


def _variables() -> list[str]:
    """Every variable that settings are read from."""
    noted = Noted()
    Settings(noted)
    return sorted(noted.names)


SETTINGS = 6000
USUAL = ["0", "1", "8081", "true", "FALSE", "auto", "json", "root", "2.5", "/opt/ml/code", "a.py", "", " 3 "]
ODD = [
    "-1",
    "9" * 20,
    "9" * 5000,
    "1e999",
    "nan",
    "inf",
    "1_0",
    "0x10",
    "\u0663",
    "\xb2",
    "a\nb",
    "\udcff",
    "+1",
]


def test_every_setting_is_taken_or_refused_in_one_line() -> None:
    seen: Counter[bool] = Counter()
    values = st.sampled_from(USUAL) | st.sampled_from(ODD) | st.text(max_size=8)

    @hypothesis(max_examples=SETTINGS, deadline=None, database=None)
    @given(st.dictionaries(st.sampled_from(_variables()), values, max_size=3))
    def environment(variables: dict[str, str]) -> None:
        try:
            settings = Settings(variables)
        except UserError as problem:
            taken = False
            named = re.match(r"[A-Z_]+(?==)", str(problem))
            assert named and named[0] in variables
            assert "\n" not in str(problem)
        else:
            taken = True
            assert 0 < settings.port < 65536 and settings.threads > 0 and 0 < settings.timeout < 1e9
        seen[taken] += 1

    environment()
    assert seen.total() >= SETTINGS
    assert min(seen[True], seen[False]) > SETTINGS // 10
