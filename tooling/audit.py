"""Audit the lock files for known vulnerabilities, write their bills of materials: python tooling/audit.py FOLDER.

Exits with 1 where a package has a known vulnerability. Where the vulnerability service is not reachable, it says so and
exits with 0, or with 1 after `--strict`.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ("cpu", "cuda", "mlflow", "serve")
LOCKS = ["requirements.lock", "infra/tools.lock", *(f"containers/{name}.lock" for name in IMAGES)]


def write_bill(bin_folder: Path, lock: str, folder: Path) -> None:
    """Write the CycloneDX bill of materials of a lock file, which needs no network."""
    output = folder / f"{Path(lock).stem}.cdx.json"
    command = [bin_folder / "cyclonedx-py", "requirements", lock, "--output-reproducible", "--of", "JSON", "-o", output]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)


def audit(bin_folder: Path, lock: str) -> tuple[list[str], int, int]:
    """Ask about each package of a lock file: what is vulnerable, and how many packages were and were not audited."""
    command = [bin_folder / "pip-audit", "--requirement", lock, "--disable-pip", "--no-deps", "--format", "json"]
    done = subprocess.run([*command, "--progress-spinner", "off"], cwd=ROOT, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return [], 0, (ROOT / lock).read_text().count("==")
    audited = [package for package in packages if "skip_reason" not in package]
    flaws = [(package, flaw) for package in audited for flaw in package["vulns"]]
    found = [
        f"{lock}: {package['name']} {package['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions'])}"
        for package, flaw in flaws
    ]
    return found, len(audited), len(packages) - len(audited)


def main() -> None:
    """Audit every lock file and write its bill of materials."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for lock in LOCKS:
        write_bill(Path(sys.executable).parent, lock, folder)
    found, audited, skipped = [], 0, 0
    for lock in LOCKS:
        flaws, asked, unasked = audit(Path(sys.executable).parent, lock)
        found, audited, skipped = found + flaws, audited + asked, skipped + unasked
        if not audited:
            break  # The service would not answer about the others either.
    print("\n".join([*found, f"Bills of materials: {len(LOCKS)} in {folder}."]))
    if not audited:
        print("audit: the vulnerability service is not reachable, so no package was audited")
    else:
        print(f"audit: {audited} packages audited, {skipped} unknown to the service, {len(found)} vulnerabilities")
    sys.exit(bool(found) or ("--strict" in sys.argv and not audited))


if __name__ == "__main__":
    main()
