"""The story of `make story`, whose turns it checks itself."""

from tests.stories.review_story import main


def test_the_story_of_a_model_comes_to_its_end(capfd):
    assert main() == 0
    lines = capfd.readouterr().out.splitlines()
    commands = [line for line in lines if line.startswith("$ hand1000 review ")]
    decisions = [command.split()[3] for command in commands]
    assert decisions.count("promote") == 7 and decisions.count("reject") == 1 and decisions.count("rollback") == 2
    # A person reads it: no progress bars or messages of libraries, and a sentence before each turn.
    assert not [line for line in lines if "%|" in line or "mlflow." in line]
    assert sum(line.startswith("# ") for line in lines) >= 9
