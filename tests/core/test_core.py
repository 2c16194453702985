"""The basic helpers: tables, progress and errors."""

import errno
import io
import sys

import pytest

from hand1000.core.errors import Hand1000Error, TransientError, one_line, translate_write_errors
from hand1000.core.progress import ProgressBar, noop_callback
from hand1000.core.tables import Bold, Table

TABLE = Table(["name", "n"], [["a|b", 1], ["<c>\nd", 20], [Bold("e"), "–"]], numeric=[1])


def test_a_markdown_cell_stays_in_its_column() -> None:
    assert TABLE.markdown().splitlines() == [
        "| name | n |",
        "| --- | ---: |",
        "| a\\|b | 1 |",
        "| &lt;c> d | 20 |",
        "| **e** | – |",
    ]


def test_an_aligned_table_pads_its_columns() -> None:
    assert Table(["name", "n"], [["a|b", 1], ["cde", 200]], numeric=[1]).text() == "name    n\na|b     1\ncde   200\n"


def test_progress_off_a_terminal_is_few_plain_lines(capsys) -> None:
    logged = []
    bar = ProgressBar("train", on_display=lambda done, metrics: logged.append((done, metrics)))
    for done in range(3, 101):
        bar(done, 100, {"loss": 1 / done})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["train: 3/100", "train: 100/100"]
    assert "loss=0.01" in lines[1] and logged == [(3, {"loss": 1 / 3}), (100, {"loss": 0.01})]


def test_progress_without_metrics_is_displayed_to_the_tracker(capsys) -> None:
    logged = []
    bar = ProgressBar("train", on_display=lambda done, metrics: logged.append((done, metrics)))
    bar(1, 3)
    bar(3, 3)
    assert logged == [(1, {}), (3, {})]


def test_progress_starts_a_new_bar_when_the_count_starts_over(capsys) -> None:
    bar = ProgressBar("read", unit="B")
    for done, total in [(1000, 2000), (2000, 2000), (500, 3000), (100, 0)]:
        bar(done, total)
    lines = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["read: 1.00k/2.00k", "read: 2.00k/2.00k", "read: 500/3.00k", "read: 100/?"]


def test_progress_on_a_terminal_moves_on_one_line(monkeypatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = ProgressBar("train")
    bar(1, 2)
    bar(2, 2)
    assert terminal.getvalue().count("\n") == 1 and "\rtrain: 100%" in terminal.getvalue()
    noop_callback(1, 2, {"loss": 0.0})


def test_a_foreign_error_becomes_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b" and one_line(KeyError()) == "KeyError"
    for code, text in [(errno.ENOSPC, "out: no space left"), (errno.EACCES, "out: not writable")]:
        with pytest.raises(Hand1000Error, match=text), translate_write_errors("out"):
            raise OSError(code, "")
    with pytest.raises(FileNotFoundError), translate_write_errors("out"):
        raise FileNotFoundError(errno.ENOENT, "")


def test_an_error_is_one_printable_line_whatever_it_names() -> None:
    assert str(Hand1000Error("a\nb\x1b[2J: no such file; add it")) == "a\\nb\\x1b[2J: no such file; add it"
    assert str(TransientError("name\udce9: gone")) == "name\\udce9: gone" and str(Hand1000Error("é: ok")) == "é: ok"
