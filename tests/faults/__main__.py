"""The fault suite: `python -m tests.faults`.

Each stage of the short demo is disturbed by each fault, run again, and compared with the undisturbed run. A row that
was measured at the same commit is kept, so that an interrupted run goes on. At the end the command writes the table of
docs/reliability.md and fails if a row is short of 100 %.
"""

import argparse
import contextlib
import fnmatch
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults import interposer, remote
from tests.faults.faults import LOCAL
from tests.faults.forks import Child, import_all
from tests.faults.proxy import proxy_before
from tests.faults.recording import Stage, load_stages, loaded_modules, record
from tests.faults.results import Results, current_commit, write_page
from tests.faults.suite import FAULTS, Options, Worker, select_rows
from tests.support.mlflow_server import mlflow_server
from tests.support.s3_server import s3_server
from tests.support.short_demo import ROOT

FOLDER = ROOT / "build/faults"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices")
    parser.add_argument(
        "--jobs", type=int, default=4, help="number of trials at the same time, of which those with servers mostly wait"
    )
    parser.add_argument("--rows", default="*/*", help="only the rows FAULT/STAGE that match this pattern")
    parser.add_argument(
        "--row", action="append", default=[], help="FAULT/STAGE=TRIALS: only these rows, in this order; may be repeated"
    )
    parser.add_argument("--trials", type=int, default=0, help="at most this many trials for each row")
    parser.add_argument("--trial", type=int, help="only the trial with this number of each row, whose files are kept")
    parser.add_argument("--again", action="store_true", help="also measure rows that this commit has already")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the results and of all trials")
    parser.add_argument("--no-page", action="store_true", help="do not write docs/reliability.md")
    return parser.parse_args(arguments)


def prepare(folder: Path, commit: str) -> dict[str, Stage]:
    """Record the undisturbed run, unless this commit's was, and import what it imports."""
    recorded = folder / "recorded"
    marker = recorded / "commit"
    if not marker.exists() or marker.read_text() != commit or commit.endswith("+"):
        shutil.rmtree(recorded, ignore_errors=True)
        shutil.rmtree(folder / "undisturbed", ignore_errors=True)
        recorded.mkdir(parents=True)
        print("recording the undisturbed run", flush=True)
        shared = {"HAND1000_CACHE": str(folder / "cache"), "MPLCONFIGDIR": str(folder / "matplotlib")}
        ending = Child(lambda: record(recorded), recorded, environment=shared | {"MLFLOW_TRACKING_URI": ""}).wait(
            deadline=600
        )
        if ending.status:
            raise SystemExit(f"tests.faults: the undisturbed run failed:\n{ending.log}")
        marker.write_text(commit)
    import_all(loaded_modules(recorded))
    return load_stages(recorded)


@contextlib.contextmanager
def run_servers(folder: Path, number: int, needed: bool) -> Iterator[list[remote.Servers | None]]:
    """Run an S3 server and an MLflow server of each worker, with a proxy of the worker before each of them.

    A trial hides what earlier ones have registered, which would disturb another worker's trial on the same MLflow.
    """
    if not needed:
        yield [None] * number
        return
    with contextlib.ExitStack() as stack:
        shutil.rmtree(folder / "servers", ignore_errors=True)
        for name in ("s3", *(f"mlflow{worker}" for worker in range(number))):
            (folder / "servers" / name).mkdir(parents=True)
        variables = stack.enter_context(s3_server(folder / "servers/s3", volumes=400))
        servers: list[remote.Servers | None] = []
        for worker in range(number):
            uri = stack.enter_context(mlflow_server(folder / f"servers/mlflow{worker}"))
            s3 = stack.enter_context(proxy_before(variables["AWS_ENDPOINT_URL_S3"], folder / f"servers/s3-{worker}"))
            mlflow = stack.enter_context(proxy_before(uri, folder / f"servers/mlflow-{worker}"))
            database = folder / f"servers/mlflow{worker}/server.db"
            servers.append(remote.Servers(s3, variables, mlflow, database, worker))
        yield servers


def main(arguments: Sequence[str]) -> int:
    """Run the suite; return the exit status."""
    options = parse(arguments)
    options.folder = options.folder.resolve()  # The stages run in other working directories.
    interposer.reexecute(options.folder, "tests.faults")
    commit = current_commit()
    stages = prepare(options.folder, commit)
    results = Results(options.folder)
    known = results.load()
    chosen = {name: int(trials) for name, _, trials in (row.rpartition("=") for row in options.row)}
    rows = select_rows(stages, lambda name: name in chosen if chosen else fnmatch.fnmatch(name, options.rows))
    if chosen:
        rows.sort(key=lambda row: list(chosen).index(f"{row[0]}/{row[1].name}"))
    missing = [
        (fault, stage)
        for fault, stage in rows
        if options.again or (stage.name, fault) not in known or known[stage.name, fault].commit != commit
    ]
    results.start_claims()
    settings = Options(options.folder, options.seed, commit, options.trials, options.trial, chosen)
    needed = any(fault not in LOCAL for fault, _ in missing)
    with run_servers(options.folder, options.jobs, needed) as servers:
        children = []
        for number in range(options.jobs):
            process = os.fork()
            if process == 0:
                status = 1
                try:
                    Worker(settings, number, stages, servers[number]).work(missing)
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            children.append(process)
        failed = [os.waitpid(process, 0)[1] for process in children]
    known = results.load()
    if not options.no_page:
        write_page(known, list(stages), list(FAULTS), options.seed)
    measured = {(stage.name, fault) for fault, stage in rows}
    short = [key for key, row in known.items() if key in measured and not row.is_perfect]
    return 1 if any(failed) or short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
