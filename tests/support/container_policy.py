"""Policy for containers: not root, read-only, with limits, from a pinned image, without a secret in plain text."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

_SECRET = re.compile(r"password|secret|token|credential|access_key", re.IGNORECASE)
_FROM_ENVIRONMENT = re.compile(r"\$\{\w+:\?")
_BUILDERS = re.compile(r"\b(build-essential|gcc|g\+\+|make|cmake|git|rustc)\b")


def pods(objects: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the pod spec of each Kubernetes object that has one."""
    for item in objects:
        template = item.get("spec", {}).get("template", {})
        if "containers" in template.get("spec", {}):
            yield f"{item['kind']} {item['metadata']['name']}", template["spec"]


def faults_of_objects(objects: Iterable[dict[str, Any]]) -> list[str]:
    """The violations of the policy in Kubernetes objects."""
    objects = list(objects)
    faults = [
        f"Secret {item['metadata']['name']}: plain text"
        for item in objects
        if item["kind"] == "Secret" and (item.get("data") or item.get("stringData"))
    ]
    for name, pod in pods(objects):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            faults += [f"{name}, {container['name']}: {fault}" for fault in _faults_of_container(pod, container)]
    return faults


def _faults_of_container(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    if not context.get("runAsNonRoot") or context.get("runAsUser", 0) == 0:
        yield "root"
    if context.get("allowPrivilegeEscalation", True):
        yield "privilege escalation"
    if not context.get("readOnlyRootFilesystem"):
        yield "writable root"
    for kind in ("requests", "limits"):
        if not {"cpu", "memory"} <= set(container.get("resources", {}).get(kind, {})):
            yield f"no {kind}"
    if "image" in container:
        yield from _faults_of_image(container["image"])
    for variable in container.get("env", []):
        if _SECRET.search(variable["name"]) and "value" in variable:
            yield f"plain {variable['name']}"


def _faults_of_image(image: str) -> Iterator[str]:
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if not digest and tag in ("", "latest"):
        yield f"moving image {image}"


def faults_of_compose(compose: dict[str, Any]) -> list[str]:
    """The violations of the policy in a compose file."""
    faults = []
    for name, service in compose["services"].items():
        if "build" not in service:  # The Dockerfile of an image that we build sets its user.
            if str(service.get("user", "0")).split(":")[0] in ("0", "root"):
                faults.append(f"{name}: root")
            if "@sha256:" not in service["image"]:
                faults.append(f"{name}: moving image {service['image']}")
        if not service.get("read_only"):
            faults.append(f"{name}: writable root")
        resources = service.get("deploy", {}).get("resources", {})
        for kind in ("limits", "reservations"):
            if not {"cpus", "memory"} <= set(resources.get(kind, {})):
                faults.append(f"{name}: no {kind}")
        for variable, value in service.get("environment", {}).items():
            secret = _SECRET.search(variable) or re.search(r"://[^/@]+:[^/@]+@", str(value))
            if secret and not _FROM_ENVIRONMENT.search(str(value)):
                faults.append(f"{name}: plain {variable}")
        faults += [
            f"{name}: open port {port}" for port in service.get("ports", []) if not port.startswith("127.0.0.1:")
        ]
    return faults


def faults_of_dockerfile(text: str) -> list[str]:
    """The violations of the policy in a Dockerfile."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    faults = [f"moving base {base}" for base in bases if not re.search(r"@sha256:[0-9a-f]{64}$", base)]
    last = lines[max(index for index, line in enumerate(lines) if line.startswith("FROM ")) :]
    users = [line.split()[1] for line in last if line.startswith("USER ")]
    if not users or not users[-1].isdigit() or users[-1] == "0":
        faults.append("root, or a user by name")
    if any(_BUILDERS.search(line) for line in last if line.startswith("RUN ")):
        faults.append("build tools in the last stage")
    if len(bases) < 2:
        faults.append("one stage")
    if not any(line.startswith("LABEL ") for line in last):
        faults.append("no labels")
    if any(line.startswith("EXPOSE ") for line in last) and not any(line.startswith("HEALTHCHECK ") for line in last):
        faults.append("a server without a healthcheck")
    faults += [f"plain {line}" for line in lines if re.match(r"(ENV|ARG) ", line) and _SECRET.search(line)]
    return faults
