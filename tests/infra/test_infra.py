"""infra/ as real tools see it: Helm, kubectl, Kubernetes' schemas, Terraform's own formatter and parser, yamllint."""

import copy
import json
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
from tests.support.infra_tools import BIN, INFRA, documents, flyte_templates, helm_and_kubectl, run
from tests.support.short_demo import ROOT
from workflows.schedules import load_schedules

KUBERNETES = "1.34"
TOOLING_FILES = (".github", ".pre-commit-config.yaml", ".yamllint.yaml", "CITATION.cff", "mkdocs.yml")
FOREIGN = {"external-secrets.io/v1"}
"""API groups of which Kubernetes itself has no schema."""


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    helm_and_kubectl(folder)
    return folder


@pytest.fixture(scope="session")
def rendered(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every object that infra/ puts into a cluster by itself."""
    found = documents(run(tools / "helm", "template", "mlflow", INFRA / "mlflow", "--namespace", "mlflow"))
    for path in sorted((INFRA / "secrets").glob("*.yaml")):
        found += documents(path.read_text())
    found += flyte_templates()
    return found + operator(tools, tmp_path_factory.mktemp("operator"))


def operator(tools: Path, folder: Path) -> list[dict[str, Any]]:
    """The training operator with our patch.

    Its manifests cannot be downloaded here: a Deployment of that name and container stands in for them.
    """
    shutil.copytree(INFRA / "training-operator", folder, dirs_exist_ok=True)
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization["resources"][0].endswith("?ref=v1.8.1")
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
    run(tools / "helm", "lint", "--strict", INFRA / "mlflow")
    kinds = set()
    for one in rendered:
        kinds.add(one["kind"])
        if one["apiVersion"] not in FOREIGN:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
        elif one["kind"] == "ExternalSecret":
            assert one["spec"]["secretStoreRef"] == {"kind": "ClusterSecretStore", "name": "hand1000"}
    assert {"Deployment", "NetworkPolicy", "ResourceQuota", "LimitRange", "ExternalSecret", "ServiceAccount"} <= kinds
    wrong = copy.deepcopy(next(one for one in rendered if one["kind"] == "Deployment"))
    wrong["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_no_container_is_root_unbounded_moving_or_told_a_secret(rendered: list[dict[str, Any]]) -> None:
    assert len(list(pods(rendered))) == 2
    assert faults_of_objects(rendered) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda pod, one: pod["securityContext"].update(runAsNonRoot=False), "root"),
        (lambda pod, one: pod["securityContext"].update(runAsUser=0), "root"),
        (lambda pod, one: one["securityContext"].pop("allowPrivilegeEscalation"), "privilege escalation"),
        (lambda pod, one: one["resources"].pop("limits"), "no limits"),
        (lambda pod, one: one["resources"]["requests"].pop("memory"), "no requests"),
        (lambda pod, one: one.update(image="registry:5000/mlflow"), "moving image"),
        (lambda pod, one: one.update(image="mlflow:latest"), "moving image"),
        (lambda pod, one: one["env"].append({"name": "DB_PASSWORD", "value": "x"}), "plain DB_PASSWORD"),
    ],
)
def test_the_policy_sees_each_fault(rendered: list[dict[str, Any]], fault: Any, said: str) -> None:
    broken = copy.deepcopy(rendered)
    _, pod = next(one for one in pods(broken) if one[0] == "Deployment mlflow")
    fault(pod, pod["containers"][0])
    assert any(said in each for each in faults_of_objects(broken))


def test_a_plain_secret_is_seen() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "a"}, "stringData": {"password": "x"}}
    assert faults_of_objects([secret]) == ["Secret a: plain text"]


@pytest.fixture(scope="session")
def terraform() -> dict[str, dict[str, Any]]:
    """Blocks of all files by type and name, as python-hcl2 reads them."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((INFRA / "terraform").glob("*.tf")):
        for kind, blocks in hcl2.loads(path.read_text()).items():
            if kind.startswith("__"):
                continue
            for block in blocks:
                for name, body in block.items():
                    found.setdefault(unquoted(kind), {}).setdefault(unquoted(name), []).append(body)
    return found


def unquoted(text: str) -> str:
    return text.strip('"')


def test_terraform_is_formatted_and_complete(terraform: dict[str, Any]) -> None:
    """No plan: providers cannot be downloaded here."""
    assert run(BIN / "terraform", "fmt", "-check", "-recursive", INFRA / "terraform") == ""
    wanted = {"aws_vpc", "aws_eks_cluster", "aws_eks_node_group", "aws_s3_bucket", "aws_iam_role", "aws_db_instance"}
    wanted |= {f"aws_s3_bucket_{one}" for one in ("versioning", "lifecycle_configuration", "public_access_block")}
    assert wanted <= set(terraform["resource"])
    text = "\n".join(path.read_text() for path in (INFRA / "terraform").glob("*.tf"))
    assert not any(word in text for word in ('"s3:*"\n', 'actions   = ["*"]', "AdministratorAccess", "AKIA"))


def test_a_file_out_of_shape_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.tf").write_text('variable "a" {\n type   = string\n}\n')
    run(BIN / "terraform", "fmt", "-check", tmp_path, expected=3)


def test_yaml_is_clean() -> None:
    run(BIN / "yamllint", "--strict", "containers", "infra", "workflows", "tasks", "hand1000", *TOOLING_FILES)


def values() -> dict[str, Any]:
    return yaml.safe_load((INFRA / "flyte/values.yaml").read_text())


def test_the_quota_is_the_tables(rendered: list[dict[str, Any]]) -> None:
    quota = resources_table().quota
    (hard,) = (one["spec"]["hard"] for one in rendered if one["kind"] == "ResourceQuota")
    told = {"limits.cpu": f"{quota.cpu}", "limits.memory": f"{quota.memory_gib}Gi"}
    assert hard == told | {"requests.nvidia.com/gpu": f"{quota.gpu}"}
    limits = values()["configuration"]["inline"]["task_resources"]["limits"]
    assert (limits["cpu"], limits["memory"], limits["gpu"]) == tuple(hard.values())
    disks = [pod.disk_gib for pod in [*resources_table().pods.values(), *resources_table().stage3.values()]]
    assert limits["ephemeralStorage"] == f"{max(disks)}Gi"


def test_nodes_are_labelled_as_flyte_asks_for_them() -> None:
    kubernetes = values()["configuration"]["inline"]["plugins"]["k8s"]
    nodes = (INFRA / "terraform/nodes.tf").read_text()
    assert f'"{kubernetes["gpu-device-node-label"]}" = each.value.accelerator' in nodes
    ((label, spot),) = kubernetes["interruptible-node-selector"].items()
    assert f'"{label}"' in nodes and f'? "{spot}" :' in nodes
    for toleration in kubernetes["interruptible-tolerations"]:
        assert f'"{toleration["key"]}"' in nodes
    assert list(kubernetes["resource-tolerations"][0]) == ["nvidia.com/gpu"] and '"nvidia.com/gpu"' in nodes
    known = {one.to_flyte_idl().device for one in vars(accelerators).values() if isinstance(one, GPUAccelerator)}
    text = (INFRA / "terraform/variables.tf").read_text()
    pools = [part.split('"')[1] for part in text.split("accelerator = ")[1:] if part.startswith('"')]
    assert pools and set(pools) <= known
    first = next(iter(resources_table().stage3.values()))
    assert getattr(accelerators, first.accelerator).to_flyte_idl().device in pools


def test_names_of_roles_buckets_and_secrets_meet(terraform: dict[str, Any], rendered: list[dict[str, Any]]) -> None:
    roles = (INFRA / "terraform/roles.tf").read_text()
    told = json.dumps([rendered, values()])
    for name in ("flyte", "tasks", "mlflow", "secrets"):
        assert f"role/hand1000-{name}" in told and f"    {name} " in roles
    buckets = (INFRA / "terraform/buckets.tf").read_text()
    addresses = {row.data for row in load_schedules().rows} | {row.root for row in load_schedules().rows}
    names = {address.removeprefix("s3://").split("/")[0] for address in addresses}
    names |= {values()["configuration"]["storage"][one] for one in ("metadataContainer", "userDataContainer")}
    assert names == {"hand1000-data", "hand1000-artifacts", "hand1000-flyte"}
    for name in names:
        assert f'"{name.removeprefix("hand1000-")}"' in buckets
    database = (INFRA / "terraform/database.tf").read_text()
    for one in rendered:
        for reference in [*one.get("spec", {}).get("data", []), *one.get("spec", {}).get("dataFrom", [])]:
            if isinstance(reference, dict):
                key = (reference.get("remoteRef") or reference.get("extract"))["key"]
                assert f"    {key.removeprefix('hand1000/')} " in database


def test_flytes_values_are_keys_of_its_chart() -> None:
    """The chart cannot be downloaded here: these are the keys of flyte-binary 1.16 that we set."""
    known = {"deployment", "configuration", "flyte-core-components", "enabled_plugins", "rbac", "serviceAccount"}
    assert set(values()) == known | {"ingress", "clusterResourceTemplates"}
    assert set(values()["configuration"]) == {"database", "storage", "logging", "inline"}
    assert "password" not in values()["configuration"]["database"]
    assert "pytorch" in values()["enabled_plugins"]["tasks"]["task-plugins"]["enabled-plugins"]
    rules = {group for rule in values()["rbac"]["extraRules"] for group in rule["apiGroups"]}
    assert "kubeflow.org" in rules


def test_the_readmes_commands_name_what_is_there() -> None:
    text = (INFRA / "README.md").read_text()
    for path in (
        "flyte/values.yaml",
        "secrets/store.yaml",
        "secrets/flyte-namespace.yaml",
        "mlflow",
        "training-operator",
    ):
        assert f"infra/{path}" in text and (ROOT / "infra" / path).exists()


@pytest.mark.slow
def test_checkov_finds_nothing(tmp_path: Path) -> None:
    """In an environment of its own: its dependencies do not go with ours."""
    run("python3.11", "-m", "venv", tmp_path / "venv")
    run(tmp_path / "venv/bin/pip", "install", "--quiet", "checkov==3.3.30")
    checkov = (tmp_path / "venv/bin/checkov", "--directory", INFRA / "terraform", "--framework", "terraform")
    run(*checkov, "--compact", "--quiet")
