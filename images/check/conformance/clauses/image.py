"""The image itself, before anything runs."""

from __future__ import annotations

import re

from conformance.clause import NotChecked, clause, expect
from conformance.engine import remove, streamed
from conformance.sources import BIND_TO_PORT, DOCKER_SECRETS, HARDENING, LABELS, LAYERS, SERVERLESS, TRAIN_RUN
from conformance.subject import Subject

CAPABILITIES = "com.amazonaws.sagemaker.capabilities."
PORT_LABEL = f"{CAPABILITIES}accept-bind-to-port"
_SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{36}"
    r"|xox[baprs]-[A-Za-z0-9-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?i:(?:secret_access_key|password|passwd|api_?key|auth_?token|session_token)\s*=\s*['\"]?[^\s'\"$]{6,})"
    r"|://[^/\s:@$]+:[^/\s:@$]{6,}@"
)
_KEYS = re.compile(
    r"(^|/)(ssh_host_\w+_key|id_(rsa|dsa|ecdsa|ed25519)|\.aws/credentials|\.netrc|\.pypirc|\.docker/config\.json"
    r"|\.git-credentials)$"
)


@clause(
    "I-ENTRY-1",
    "recommended",
    TRAIN_RUN,
    "ENTRYPOINT, if set, is in exec form",
    'Write ENTRYPOINT ["program", "argument"]: a shell passes on neither arguments nor signals.',
)
def exec_form(subject: Subject) -> None:
    entry = subject.config.get("Entrypoint") or []
    expect(entry[:2] not in (["/bin/sh", "-c"], ["/bin/bash", "-c"]), f"ENTRYPOINT is {entry}")


@clause(
    "I-ENTRY-2",
    "required",
    TRAIN_RUN,
    "The entry point is not tini",
    "Remove tini from ENTRYPOINT: it interprets the platform's arguments as its own.",
)
def no_tini(subject: Subject) -> None:
    entry = subject.config.get("Entrypoint") or [""]
    expect(entry[0].rpartition("/")[2] not in ("tini", "tini-static"), f"ENTRYPOINT is {entry}")


@clause(
    "I-LABEL-1",
    "recommended",
    BIND_TO_PORT,
    "A label declares that the server listens on the port in SAGEMAKER_BIND_TO_PORT",
    f"Listen on that port, and add LABEL {PORT_LABEL}=true: inference pipelines need it.",
    verb="serve",
)
def port_label(subject: Subject) -> None:
    expect(PORT_LABEL in subject.labels, f"there is no label {PORT_LABEL}")


@clause(
    "I-LABEL-2",
    "required",
    LABELS,
    "Each capability label is true or false",
    "Set the label to true or false.",
    verb="serve",
)
def labels_true(subject: Subject) -> None:
    wrong = {
        k: v for k, v in subject.labels.items() if k.startswith(CAPABILITIES) and v not in ("true", "false")
    }
    expect(not wrong, f"other values: {wrong}")


@clause(
    "I-SIZE-1",
    "required",
    SERVERLESS,
    "The image is smaller than 10 GB",
    "Leave out build tools, caches and data: `docker history IMAGE` shows the size of each layer.",
)
def size(subject: Subject) -> None:
    taken = subject.image.attrs["Size"]
    expect(taken < 10e9, f"its size is {taken / 1e9:.1f} GB")


@clause(
    "I-LAYERS-1",
    "recommended",
    LAYERS,
    "The image has at most 60 layers",
    "Combine RUN and COPY instructions: an instance that starts fetches and unpacks each layer separately.",
)
def layers(subject: Subject) -> None:
    count = len(subject.image.attrs["RootFS"]["Layers"])
    expect(count <= 60, f"it has {count} layers")


@clause(
    "I-SECRET-1",
    "recommended",
    DOCKER_SECRETS,
    "The image's history, variables and labels contain no secrets",
    "Revoke the secret, then rebuild with `RUN --mount=type=secret`: anyone who pulls the image can read ARG and ENV.",
)
def no_secret_in_history(subject: Subject) -> None:
    texts = [f"variable {line}" for line in subject.config.get("Env") or []]
    texts += [f"label {name}={value}" for name, value in subject.labels.items()]
    texts += [f"history {line.get('CreatedBy', '')}" for line in subject.image.history()]
    found = [f"{text.split()[0]} …{match[0][:12]}…" for text in texts if (match := _SECRET.search(text))]
    expect(not found, f"possible secrets: {', '.join(found)}")


@clause(
    "I-SECRET-2",
    "recommended",
    DOCKER_SECRETS,
    "The image contains no private keys or credential files",
    "Remove the file in the layer that creates it: all containers of the image share that key.",
)
def no_key_files(subject: Subject) -> None:
    found = _files(subject)["keys"]
    expect(not found, ", ".join(found))


@clause(
    "I-SETUID-1",
    "hardened",
    HARDENING,
    "No file is setuid or setgid",
    r"RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} +",
)
def no_setuid(subject: Subject) -> None:
    found = _files(subject)["setuid"]
    expect(not found, ", ".join(found[:5]))


@clause(
    "I-PORT-1",
    "required",
    BIND_TO_PORT,
    "If the label declares it, the server listens on the port in SAGEMAKER_BIND_TO_PORT",
    "Read SAGEMAKER_BIND_TO_PORT when the server starts, or remove the label.",
    verb="serve",
)
def other_port(subject: Subject) -> None:
    if subject.labels.get(PORT_LABEL) != "true":
        raise NotChecked(f"the image does not declare it: there is no label {PORT_LABEL}=true")
    environment = {"SAGEMAKER_BIND_TO_PORT": "15080", "SAGEMAKER_SAFE_PORT_RANGE": "15000-15999"}
    with subject.serving(environment=environment, port=15080) as server:
        server.wait_ready(subject.options.start_timeout)


def _files(subject: Subject) -> dict[str, list[str]]:
    """The files of the image that break a clause, read once."""
    if "files" not in subject.remembered:
        keys, setuid = [], []
        container = subject.engine.create(subject.name, "train")
        try:
            for entry in streamed(container.export()):
                if entry.isfile() and entry.size and _KEYS.search(entry.name):
                    keys.append(f"/{entry.name}")
                if entry.isfile() and entry.mode & 0o6000:
                    setuid.append(f"/{entry.name}")
        finally:
            remove(container)
        subject.remembered["files"] = {"keys": keys, "setuid": setuid}
    found: dict[str, list[str]] = subject.remembered["files"]
    return found
