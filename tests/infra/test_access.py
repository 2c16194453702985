"""Who reaches the cluster's services: sign-in, the network policies, TLS and the pins of third-party charts."""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.infra_tools import INFRA, documents, flyte_templates, helm_and_kubectl, mlflow_chart, run

FLYTE = yaml.safe_load((INFRA / "flyte/values.yaml").read_text())
PRIVATE = {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    helm_and_kubectl(folder)
    return folder


def test_flyte_requires_sign_in() -> None:
    """The chart refuses to render with sign-in and without a provider, so the values must not name one."""
    auth = FLYTE["configuration"]["auth"]
    assert auth["enabled"] is True and "oidc" not in auth and auth.get("enableAuthServer", True)
    assert auth["authorizedUris"] == ["https://flyte.example.com"]


@pytest.mark.parametrize(("enabled", "code"), [("true", 0), ("false", 1)])
def test_helm_refuses_to_publish_flyte_without_sign_in(tools: Path, tmp_path: Path, enabled: str, code: int) -> None:
    """The chart evaluates `ingress.host` as a template; this chart does the same."""
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: flyte-binary, version: 1.16.8}")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/http.yaml").write_text("host: {{ tpl .Values.ingress.host . | quote }}")
    option = f"configuration.auth.enabled={enabled}"
    values = INFRA / "flyte/values.yaml"
    rendered = run(tools / "helm", "template", "a", tmp_path, "--values", values, "--set", option, expected=code)
    assert code or documents(rendered) == [{"host": "flyte.example.com"}]


def test_flytes_own_secret_is_not_that_of_its_sample() -> None:
    """Without `client_secret`, flyteadmin keeps the hash of a well-known password."""
    secrets = {
        item["metadata"]["name"]: item for item in documents((INFRA / "secrets/flyte-namespace.yaml").read_text())
    }
    configuration = FLYTE["configuration"]
    keys = {
        entry["secretKey"] for entry in secrets[configuration["auth"]["clientSecretsExternalSecretRef"]]["spec"]["data"]
    }
    assert keys == {"client_secret", "oidc_client_secret"}
    (text,) = secrets[configuration["inlineSecretRef"]]["spec"]["target"]["template"]["data"].values()
    clients = yaml.safe_load(text.replace("{{ .client_secret_hash | quote }}", "hash"))
    assert clients["auth"]["appAuth"]["selfAuthServer"]["staticClients"] == {
        "flytepropeller": {"client_secret": "hash"}
    }
    assert "client_secret_hash" in (INFRA / "terraform/database.tf").read_text()


def test_the_balancer_is_internal_and_every_host_has_tls(tools: Path) -> None:
    controller = yaml.safe_load((INFRA / "ingress/values.yaml").read_text())["controller"]
    notes = controller["service"]["annotations"]
    assert notes["service.beta.kubernetes.io/aws-load-balancer-scheme"] == "internal"
    assert notes["service.beta.kubernetes.io/aws-load-balancer-internal"] == "true"
    assert controller["config"]["force-ssl-redirect"] == "true" and controller["allowSnippetAnnotations"] is False
    assert FLYTE["ingress"]["tls"] == [{"hosts": ["flyte.example.com"], "secretName": "flyte-tls"}]
    run(tools / "helm", "template", "mlflow", INFRA / "mlflow", expected=1)  # No digest of the image.
    mlflow = mlflow_chart(tools)
    (ingress,) = [item for item in documents(mlflow) if item["kind"] == "Ingress"]
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"] for rule in ingress["spec"]["rules"]]
    assert "kind: Ingress" not in mlflow_chart(tools, "--set", "ingress.host=")


def test_passwords_travel_encrypted_within_the_cluster(tools: Path) -> None:
    (server,) = [item for item in documents(mlflow_chart(tools)) if item["kind"] == "Deployment"]
    (container,) = server["spec"]["template"]["spec"]["containers"]
    assert container["args"][-2:] == [
        "--uvicorn-opts",
        "--ssl-certfile /etc/mlflow/tls.crt --ssl-keyfile /etc/mlflow/tls.key",
    ]
    assert {container[f"{kind}Probe"]["httpGet"]["scheme"] for kind in ("startup", "readiness", "liveness")} == {
        "HTTPS"
    }
    pods = FLYTE["configuration"]["inline"]["plugins"]["k8s"]
    environment = {name: value for entry in pods["default-env-vars"] for name, value in entry.items()}
    assert environment["MLFLOW_TRACKING_URI"].startswith("https://")
    (template,) = [item for item in flyte_templates() if item["kind"] == "PodTemplate"]
    assert pods["default-pod-template-name"] == template["metadata"]["name"]
    mounts = {mount["mountPath"] for mount in template["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts == {"/tmp", "/home/hand1000", str(Path(environment["MLFLOW_TRACKING_SERVER_CERT_PATH"]).parent)}
    assert pods["default-security-context"]["readOnlyRootFilesystem"] is True
    assert FLYTE["configuration"]["database"]["options"] == "sslmode=require"


def policies() -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item["spec"] for item in flyte_templates() if item["kind"] == "NetworkPolicy"}


def test_tasks_are_closed_by_default() -> None:
    assert policies()["deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    opened = [name for name, spec in policies().items() if spec.get("ingress")]
    assert opened == ["workers"]


def test_tasks_reach_only_what_they_need() -> None:
    reached = set()
    for rule in policies()["tasks"]["egress"]:
        ports = tuple(port["port"] for port in rule["ports"])
        for peer in rule["to"]:
            if "ipBlock" in peer:
                assert set(peer["ipBlock"]["except"]) == PRIVATE
                reached.add(("internet", ports))
            else:
                assert peer["podSelector"]["matchLabels"]
                reached.add((peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], ports))
    expected = {("kube-system", (53, 53)), ("mlflow", (5000,)), ("flyte", (8088, 8089)), ("internet", (443,))}
    assert reached == expected
    workers = policies()["workers"]
    selector = {"matchExpressions": [{"key": "training.kubeflow.org/job-name", "operator": "Exists"}]}
    assert workers["podSelector"] == selector
    assert workers["ingress"] == [{"from": [{"podSelector": selector}]}]
    assert workers["egress"] == [{"to": [{"podSelector": selector}]}]


def charts() -> list[dict[str, str]]:
    return yaml.safe_load((INFRA / "charts.yaml").read_text())["charts"]


def test_every_chart_of_the_readme_is_pinned() -> None:
    for chart in charts():
        assert len(bytes.fromhex(chart["sha256"])) == 32
        assert f"charts/{chart['name']}-{chart['version']}.tgz" in (INFRA / "README.md").read_text()
    assert " --repo " not in (INFRA / "README.md").read_text()


@pytest.mark.parametrize("altered", [False, True])
def test_a_chart_of_another_digest_is_refused(tmp_path: Path, altered: bool) -> None:
    (tmp_path / "charts.sh").write_text((INFRA / "charts.sh").read_text())
    pinned = [chart | {"sha256": hashlib.sha256(f"{chart['name']}\n".encode()).hexdigest()} for chart in charts()[:2]]
    if altered:
        pinned[1]["sha256"] = "0" * 64
    (tmp_path / "charts.yaml").write_text(yaml.safe_dump({"charts": pinned}, sort_keys=False))
    download = tmp_path / "helm"
    download.write_text('#!/bin/sh\necho "$2" > "$8/$2-$6.tgz"\n')
    download.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["sh", tmp_path / "charts.sh", tmp_path / "charts"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    files = {path.name for path in (tmp_path / "charts").iterdir()}
    first, second = (f"{chart['name']}-{chart['version']}.tgz" for chart in pinned)
    assert (done.returncode, files) == ((1, {first}) if altered else (0, {first, second})), done.stderr
    assert not altered or second in done.stderr.splitlines()[-1]
