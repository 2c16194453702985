"""`hand1000 review` on an embedded MLflow, as a reviewer calls it."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from hand1000.cli import main as cli
from hand1000.registry.connection import connect
from tests.support.reviews import register


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder whose `artifacts` have three candidates: 1 is the champion, 2 passed, 3 failed."""
    folder = tmp_path_factory.mktemp("review")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
        patch.chdir(folder)
        tracking = connect(folder / "artifacts")
        register(tracking, folder, 1)
        assert cli.main(["review", "promote", "four/1", "--as", "ada", "--reason", "first model"]) == 0
        register(tracking, folder, 2, champion="models:/hand1000-four/1")
        register(tracking, folder, 3, champion="models:/hand1000-four/1", verdict="failed")
        yield folder


def test_list_and_history_are_tables(folder, capsys):
    assert cli.main(["review", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["candidate", "state", "gates"]
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["four/3", "pending", "failed"],
        ["four/2", "pending", "passed"],
        ["four/1", "approved", "passed"],
    ]
    assert "gesture accuracy 0.1, at least 0.5" in lines[1]
    assert lines[-1] == "hand1000-four: champion 1 (candidate 1)"
    assert cli.main(["review", "history", "four"]) == 0
    assert "ada  promote   four/1" in capsys.readouterr().out
    assert cli.main(["review", "list", "four", "--state", "rejected"]) == 0
    assert capsys.readouterr().out.startswith("no candidate in this state")


def test_json_has_all_that_the_tables_show(folder, capsys):
    assert cli.main(["review", "list", "four", "--json"]) == 0
    newest, _, first = json.loads(capsys.readouterr().out)
    assert (newest["uri"], newest["state"], newest["verdict"]) == (
        "models:/hand1000-four-candidates/3",
        "pending",
        "failed",
    )
    assert newest["compared_with"] == "models:/hand1000-four/1" and newest["metrics"]["gesture accuracy"] == 0.53
    assert first["decisions"][0]["who"] == "ada" and first["decisions"][0]["number"] == 1
    assert cli.main(["review", "history", "hand1000-four", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first["decisions"]


def test_show_prints_commands_that_run_as_printed(folder, capsys, monkeypatch, tmp_path):
    # In another folder, where the default would not find the registry.
    monkeypatch.chdir(tmp_path)
    registry = str(folder / "artifacts")
    assert cli.main(["review", "show", "four/2", "--registry", registry]) == 0
    output = capsys.readouterr().out
    assert "models:/hand1000-four-candidates/2" in output and "champion 1 (candidate 1)" in output
    commands = [line.strip() for line in output.splitlines() if line.startswith("  hand1000 review ")]
    assert [shlex.split(command)[2] for command in commands] == ["compare", "promote", "reject"]
    assert cli.main(shlex.split(commands[0])[1:]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("gesture accuracy"))
    assert line.split()[-3:] == ["0.51", "0.52", "+0.01"]
    # The reason is still to be written.
    assert cli.main(shlex.split(commands[2])[1:]) == 2
    assert "write why" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "four/3", "--as", "ada"], "failed: gesture accuracy 0.1"),
        (["promote", "four/2", "--champion", "none"], "the champion is 1, not none"),
        (["promote", "four/9"], "there are: 1, 2, 3"),
        (["reject", "four/1", "--reason", "bad"], "roll back first"),
        (["reject", "four/2", "--reason", " "], "needs a reason"),
        (["rollback", "four"], "there is no previous champion"),
        (["compare", "like/1"], "no such candidate"),
        (["list", "like"], "no models:/hand1000-like-candidates there"),
        (["list", "--registry", "nowhere"], "no MLflow here"),
    ],
)
def test_errors_are_one_line_with_a_remedy(folder, arguments, message, capsys):
    assert cli.main(["review", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err and output.err.count("\n") == 1 and not output.out


def test_malformed_champion_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        cli.main(["review", "promote", "four/2", "--champion", "first"])
    assert "give the number of a version" in capsys.readouterr().err


def test_decisions_of_the_command_line(folder, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")

    def review(*arguments):
        assert cli.main(["review", *arguments]) == 0
        return capsys.readouterr().out

    assert review("promote", "four/2") == "four/2 is the champion now, models:/hand1000-four/2 (before: 1)\n"
    review("promote", "four/3", "--champion", "2", "--override", "the only one with a thumb")
    assert review("rollback", "four", "--reason", "blurred") == "rolled back to models:/hand1000-four/2 (before: 3)\n"
    assert review("reject", "four/3", "--reason", "blurred") == "four/3 is rejected\n"
    assert "promote (override)" in review("history", "four")
    # In a process of its own: MLflow's own messages do not get between.
    program = "import sys; from hand1000.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "review", "show", "four/3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ})
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "bob  promote (override)  the only one with a thumb" in done.stdout
