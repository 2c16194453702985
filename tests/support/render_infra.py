"""Write the Kubernetes objects of infra/ to a folder, for Checkov: python -m tests.support.render_infra FOLDER."""

import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.infra_tools import INFRA, flyte_templates, helm_and_kubectl, mlflow_chart

SKIPPED = {
    "CKV_K8S_8": "a task ends by itself",
    "CKV_K8S_9": "a task ends by itself",
    "CKV_K8S_35": "MLflow's client reads its password from the environment",
    "CKV_K8S_40": "the user of the image",
}


def task_pod(template: dict[str, Any]) -> dict[str, Any]:
    """A task's pod as Flyte makes it of the namespace's template and the defaults of infra/flyte/values.yaml."""
    defaults = yaml.safe_load((INFRA / "flyte/values.yaml").read_text())["configuration"]["inline"]["plugins"]["k8s"]
    pod = template["template"]["spec"]
    limits = {"cpu": defaults["default-cpus"], "memory": defaults["default-memory"]}
    pod["containers"][0] |= {
        "image": f"hand1000-cpu@sha256:{'0' * 64}",
        "imagePullPolicy": "Always",
        "resources": {"requests": limits, "limits": limits},
        "securityContext": defaults["default-security-context"],
        "envFrom": [{"secretRef": {"name": name}} for name in defaults["default-env-from-secrets"]],
    }
    notes = {f"checkov.io/skip{number}": f"{check}={reason}" for number, (check, reason) in enumerate(SKIPPED.items())}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"] | {"name": "task", "annotations": notes},
        "spec": pod | {"securityContext": defaults["default-pod-security-context"]},
    }


def main(folder: Path) -> None:
    """Write one file for each part of infra/."""
    folder.mkdir(parents=True, exist_ok=True)
    helm_and_kubectl(folder)
    objects = [task_pod(item) if item["kind"] == "PodTemplate" else item for item in flyte_templates()]
    (folder / "flyte.yaml").write_text(yaml.safe_dump_all(objects))
    (folder / "mlflow.yaml").write_text(mlflow_chart(folder))
    for path in (INFRA / "secrets").glob("*.yaml"):
        (folder / path.name).write_text(path.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
