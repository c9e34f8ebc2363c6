"""The files of /opt/ml/input/config, each of which is optional."""

from __future__ import annotations

import os

from .. import paths
from ..hints import Any
from ..report import UserError
from . import jsontext
from .cluster import are_names, is_name


def read(name: str) -> dict[str, Any]:
    """The object in a file of input/config; empty if there is no such file."""
    path = f"{paths.CONFIG}/{name}"
    try:
        with open(path, "rb") as file:
            value = jsontext.loads(file.read().decode().lstrip("\ufeff"))
    except FileNotFoundError:
        return {}
    except IsADirectoryError as error:
        raise UserError(
            f"{path} is a directory, as Docker makes one where the file to mount is not there; mount the file"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; mount it so that uid {os.geteuid()} can read it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}; write it as a JSON object in UTF-8") from error
    if not isinstance(value, dict):
        kind = {"list": "an array", "str": "a string"}.get(type(value).__name__, jsontext.dumps(value))
        raise UserError(f'{path} holds {kind}; it must be a JSON object such as {{"name": "value"}}')
    return value


def instance_groups(resources: dict[str, Any]) -> dict[str, dict[str, Any]]:
    groups = resources.get("instance_groups") or []
    if not isinstance(groups, list) or not all(map(_is_group, groups)):
        raise UserError(
            f"{paths.CONFIG}/resourceconfig.json: each of instance_groups must be an object with"
            " instance_group_name, instance_type and hosts"
        )
    return {group["instance_group_name"]: group for group in groups}


def _is_group(group: Any) -> bool:
    return (
        isinstance(group, dict)
        and is_name(group.get("instance_group_name"))
        and are_names(group.get("hosts"))
    )


def named(resources: dict[str, Any], key: str) -> str | None:
    """The name under this key, or None."""
    name = resources.get(key) or None
    if name and not is_name(name):
        raise UserError(f"{paths.CONFIG}/resourceconfig.json: {key} must be a name")
    return name
