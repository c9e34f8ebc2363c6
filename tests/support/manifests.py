"""Kubernetes manifests, checked against its own schemas and those of operators, which lie in schemas/.

Each of the latter is the openAPIV3Schema of a CustomResourceDefinition; its $comment names the source.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

Manifest = dict[str, Any]

SCHEMAS = {
    (found["apiVersion"], found["kind"]): found["schema"]
    for found in map(json.loads, (path.read_text() for path in Path(__file__).parent.glob("schemas/*.json")))
}


def load(path: Path) -> dict[str, Manifest]:
    """The resources of a file by kind."""
    return {resource["kind"]: resource for resource in yaml.safe_load_all(path.read_text())}


def validate(resource: Manifest, version: str = kubernetes_validate.latest_version()) -> None:
    """Raises the validator's error if the cluster would refuse the resource or drop a part of it."""
    schema = SCHEMAS.get((resource["apiVersion"], resource["kind"]))
    if schema:
        jsonschema.Draft202012Validator(_strict(schema)).validate(resource)
        for template in pod_templates(resource):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
            kubernetes_validate.validate(pod, version, strict=True)
    else:
        kubernetes_validate.validate(resource, version, strict=True)


def pod_templates(resource: Any) -> list[Manifest]:
    """The pod templates in a resource, at any depth."""
    if isinstance(resource, list):
        return [found for part in resource for found in pod_templates(part)]
    if not isinstance(resource, dict):
        return []
    template = resource.get("template", {})
    own = [template] if "containers" in template.get("spec", {}) else []
    return own + [found for part in resource.values() for found in pod_templates(part)]


def _strict(schema: Any) -> Any:
    """The schema, closed to fields that it does not name: Kubernetes would drop them silently."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in schema:
        strict.setdefault("additionalProperties", False)
    return strict


def container_options(pod: Manifest, **folders: Path) -> tuple[str, ...]:
    """Options of `docker run` that set up a container as Kubernetes sets up the pod's only one.

    `folders` stand in for the pod's volumes of these names; an emptyDir in memory needs none.
    """
    (container,) = pod["containers"]
    context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    options = [f"--env={variable['name']}={variable['value']}" for variable in container.get("env", ())]
    if "runAsUser" in context:
        options.append(f"--user={context['runAsUser']}:{context['runAsGroup']}")
    options += [f"--cap-drop={name}" for name in context.get("capabilities", {}).get("drop", ())]
    if context.get("allowPrivilegeEscalation") is False:
        options.append("--security-opt=no-new-privileges")
    if context.get("readOnlyRootFilesystem"):
        options.append("--read-only")
    if "command" in container:
        options.append(f"--entrypoint={container['command'][0]}")
    for mount in container.get("volumeMounts", ()):
        name, place = mount["name"], mount["mountPath"]
        if name in folders:
            options.append(f"--volume={folders[name]}:{place}{':ro' if mount.get('readOnly') else ''}")
        else:
            options.append(f"--tmpfs={place}")
    return tuple(options)


def arguments(pod: Manifest) -> tuple[str, ...]:
    """What follows the image's name on the command line of `docker run`."""
    (container,) = pod["containers"]
    return (*container.get("command", ())[1:], *container.get("args", ()))
