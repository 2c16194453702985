"""infra/ passes Helm, kubectl, Kubernetes' schemas, Terraform's formatter and parser, yamllint and our policy."""

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import hcl2
import kubernetes_validate
import pytest
import yaml
from flytekit.extras import accelerators
from flytekit.extras.accelerators import GPUAccelerator

from tasks.resources import resources_table
from tests.support.container_policy import faults_of_objects, pods
from tests.support.infra_tools import BIN, INFRA, documents, flyte_templates, helm_and_kubectl, mlflow_chart, run
from tests.support.short_demo import ROOT
from workflows.schedules import load_schedules

KUBERNETES = "1.34"
TOOLING_FILES = (".github", ".pre-commit-config.yaml", ".yamllint.yaml", "CITATION.cff", "mkdocs.yml")
CUSTOM_APIS = {"external-secrets.io/v1"}
"""API groups of custom resources, which Kubernetes' schemas do not cover."""


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    helm_and_kubectl(folder)
    return folder


@pytest.fixture(scope="session")
def rendered(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every Kubernetes object of infra/."""
    objects = documents(mlflow_chart(tools))
    for path in sorted((INFRA / "secrets").glob("*.yaml")):
        objects += documents(path.read_text())
    objects += flyte_templates()
    return objects + training_operator(tools, tmp_path_factory.mktemp("operator"))


def training_operator(tools: Path, folder: Path) -> list[dict[str, Any]]:
    """The training operator with our patch.

    The tests cannot download its manifests, so a Deployment of the same name and container replaces them.
    """
    shutil.copytree(INFRA / "training-operator", folder, dirs_exist_ok=True)
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert re.search(r"\?ref=[0-9a-f]{40}$", kustomization["resources"][0])
    kustomization["resources"] = ["base.yaml"]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    labels = {"app": "training-operator"}
    container = {"name": "training-operator", "image": "kubeflow/training-operator:v1-855e096"}
    base = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "training-operator"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    return documents(run(tools / "kubectl", "kustomize", folder))


def test_every_object_is_valid(rendered: list[dict[str, Any]], tools: Path) -> None:
    digest = f"image.digest=sha256:{'0' * 64}"
    run(tools / "helm", "lint", "--strict", INFRA / "mlflow", "--set", digest)
    kinds = set()
    for item in rendered:
        kinds.add(item["kind"])
        if item["apiVersion"] not in CUSTOM_APIS:
            kubernetes_validate.validate(item, KUBERNETES, strict=True)
        elif item["kind"] == "ExternalSecret":
            assert item["spec"]["secretStoreRef"] == {"kind": "ClusterSecretStore", "name": "hand1000"}
    assert {"Deployment", "NetworkPolicy", "ResourceQuota", "LimitRange", "ExternalSecret", "ServiceAccount"} <= kinds
    wrong = copy.deepcopy(next(item for item in rendered if item["kind"] == "Deployment"))
    wrong["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_containers_follow_the_policy(rendered: list[dict[str, Any]]) -> None:
    assert len(list(pods(rendered))) == 2
    assert faults_of_objects(rendered) == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda pod, container: pod["securityContext"].update(runAsNonRoot=False), "root"),
        (lambda pod, container: pod["securityContext"].update(runAsUser=0), "root"),
        (lambda pod, container: container["securityContext"].pop("allowPrivilegeEscalation"), "privilege escalation"),
        (lambda pod, container: container["securityContext"].pop("readOnlyRootFilesystem"), "writable root"),
        (lambda pod, container: container["resources"].pop("limits"), "no limits"),
        (lambda pod, container: container["resources"]["requests"].pop("memory"), "no requests"),
        (lambda pod, container: container.update(image="registry:5000/mlflow"), "moving image"),
        (lambda pod, container: container.update(image="mlflow:latest"), "moving image"),
        (lambda pod, container: container["env"].append({"name": "DB_PASSWORD", "value": "x"}), "plain DB_PASSWORD"),
    ],
)
def test_the_policy_detects_a_fault(rendered: list[dict[str, Any]], fault: Any, message: str) -> None:
    broken = copy.deepcopy(rendered)
    pod = dict(pods(broken))["Deployment mlflow"]
    fault(pod, pod["containers"][0])
    assert any(message in line for line in faults_of_objects(broken))


def test_the_policy_detects_a_plain_secret() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "a"}, "stringData": {"password": "x"}}
    assert faults_of_objects([secret]) == ["Secret a: plain text"]


@pytest.fixture(scope="session")
def terraform() -> dict[str, dict[str, Any]]:
    """The blocks of all Terraform files by type and name, as python-hcl2 reads them."""
    by_type: dict[str, dict[str, Any]] = {}
    for path in sorted((INFRA / "terraform").glob("*.tf")):
        for kind, blocks in hcl2.loads(path.read_text()).items():
            if kind.startswith("__"):
                continue
            for block in blocks:
                for name, body in block.items():
                    by_type.setdefault(unquoted(kind), {}).setdefault(unquoted(name), []).append(body)
    return by_type


def unquoted(text: str) -> str:
    return text.strip('"')


def test_terraform_is_formatted_and_complete(terraform: dict[str, Any]) -> None:
    """There is no `terraform plan`, because the tests cannot download providers."""
    assert run(BIN / "terraform", "fmt", "-check", "-recursive", INFRA / "terraform") == ""
    required = {"aws_vpc", "aws_eks_cluster", "aws_eks_node_group", "aws_s3_bucket", "aws_iam_role", "aws_db_instance"}
    required |= {f"aws_s3_bucket_{kind}" for kind in ("versioning", "lifecycle_configuration", "public_access_block")}
    assert required <= set(terraform["resource"])
    source = "\n".join(path.read_text() for path in (INFRA / "terraform").glob("*.tf"))
    assert not any(text in source for text in ('"s3:*"\n', 'actions   = ["*"]', "AdministratorAccess", "AKIA"))


def test_terraform_detects_an_unformatted_file(tmp_path: Path) -> None:
    (tmp_path / "a.tf").write_text('variable "a" {\n type   = string\n}\n')
    run(BIN / "terraform", "fmt", "-check", tmp_path, expected=3)


def test_yaml_is_clean() -> None:
    run(BIN / "yamllint", "--strict", "containers", "infra", "workflows", "tasks", "hand1000", *TOOLING_FILES)


def values() -> dict[str, Any]:
    return yaml.safe_load((INFRA / "flyte/values.yaml").read_text())


def test_the_quota_equals_that_of_the_resources_table(rendered: list[dict[str, Any]]) -> None:
    quota = resources_table().quota
    (hard,) = (item["spec"]["hard"] for item in rendered if item["kind"] == "ResourceQuota")
    compute = {"limits.cpu": f"{quota.cpu}", "limits.memory": f"{quota.memory_gib}Gi"}
    assert hard == compute | {"requests.nvidia.com/gpu": f"{quota.gpu}"}
    limits = values()["configuration"]["inline"]["task_resources"]["limits"]
    assert (limits["cpu"], limits["memory"], limits["gpu"]) == tuple(hard.values())
    disks = [pod.disk_gib for pod in [*resources_table().pods.values(), *resources_table().stage3.values()]]
    assert limits["ephemeralStorage"] == f"{max(disks)}Gi"


def test_node_labels_match_flytes_node_selectors() -> None:
    kubernetes = values()["configuration"]["inline"]["plugins"]["k8s"]
    nodes = (INFRA / "terraform/nodes.tf").read_text()
    assert f'"{kubernetes["gpu-device-node-label"]}" = each.value.accelerator' in nodes
    ((label, spot),) = kubernetes["interruptible-node-selector"].items()
    assert f'"{label}"' in nodes and f'? "{spot}" :' in nodes
    for toleration in kubernetes["interruptible-tolerations"]:
        assert f'"{toleration["key"]}"' in nodes
    assert list(kubernetes["resource-tolerations"][0]) == ["nvidia.com/gpu"] and '"nvidia.com/gpu"' in nodes
    gpus = [value for value in vars(accelerators).values() if isinstance(value, GPUAccelerator)]
    known = {gpu.to_flyte_idl().device for gpu in gpus}
    text = (INFRA / "terraform/variables.tf").read_text()
    pools = [part.split('"')[1] for part in text.split("accelerator = ")[1:] if part.startswith('"')]
    assert pools and set(pools) <= known
    first = next(iter(resources_table().stage3.values()))
    assert getattr(accelerators, first.accelerator).to_flyte_idl().device in pools


def test_names_of_roles_buckets_and_secrets_match(terraform: dict[str, Any], rendered: list[dict[str, Any]]) -> None:
    roles = (INFRA / "terraform/roles.tf").read_text()
    manifests = json.dumps([rendered, values()])
    for name in ("flyte", "tasks", "mlflow", "secrets"):
        assert f"role/hand1000-{name}" in manifests and f"    {name} " in roles
    buckets = (INFRA / "terraform/buckets.tf").read_text()
    addresses = {row.data for row in load_schedules().rows} | {row.root for row in load_schedules().rows}
    names = {address.removeprefix("s3://").split("/")[0] for address in addresses}
    names |= {values()["configuration"]["storage"][key] for key in ("metadataContainer", "userDataContainer")}
    assert names == {"hand1000-data", "hand1000-artifacts", "hand1000-flyte"}
    for name in names:
        assert f'"{name.removeprefix("hand1000-")}"' in buckets
    source = "".join((INFRA / f"terraform/{name}.tf").read_text() for name in ("certificates", "database"))
    for item in rendered:
        for reference in [*item.get("spec", {}).get("data", []), *item.get("spec", {}).get("dataFrom", [])]:
            if isinstance(reference, dict):
                key = (reference.get("remoteRef") or reference.get("extract"))["key"]
                name = key.removeprefix("hand1000/")
                assert f"    {name} " in source or f'"${{var.name}}/{name}"' in source


def test_flytes_values_are_keys_of_the_chart() -> None:
    """CI cannot download the chart, so `known` lists the keys of flyte-binary 1.16 that we set."""
    known = {"deployment", "configuration", "flyte-core-components", "enabled_plugins", "rbac", "serviceAccount"}
    assert set(values()) == known | {"ingress", "clusterResourceTemplates"}
    assert set(values()["configuration"]) == {"auth", "database", "storage", "logging", "inline", "inlineSecretRef"}
    assert "password" not in values()["configuration"]["database"]
    assert "pytorch" in values()["enabled_plugins"]["tasks"]["task-plugins"]["enabled-plugins"]


def test_flyte_may_create_what_its_templates_hold() -> None:
    """The chart's own rules cover the first three kinds."""
    granted = {("", "namespaces"), ("", "resourcequotas"), ("", "serviceaccounts")}
    for rule in values()["rbac"]["extraRules"]:
        if {"create", "get", "update", "patch"} <= set(rule["verbs"]):
            granted |= {(group, kind) for group in rule["apiGroups"] for kind in rule["resources"]}
    for item in flyte_templates():
        group = item["apiVersion"].rpartition("/")[0]
        plural = re.sub("ys$", "ies", f"{item['kind'].lower()}s")
        assert (group, plural) in granted
    assert ("kubeflow.org", "pytorchjobs") in granted


def test_paths_in_the_readme_exist() -> None:
    text = (INFRA / "README.md").read_text()
    for path in (
        "charts.sh",
        "flyte/values.yaml",
        "ingress/values.yaml",
        "secrets/store.yaml",
        "secrets/flyte-namespace.yaml",
        "mlflow",
        "training-operator",
    ):
        assert f"infra/{path}" in text and (ROOT / "infra" / path).exists()
