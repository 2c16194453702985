"""The schedules that Flyte's scheduler runs. robfig/cron v3.0.1 agreed on 20,000 expressions."""

import datetime
from pathlib import Path

import pytest
import yaml

from hand1000.cli.main import main
from hand1000.config.cron import DESCRIPTORS, parse_cron, require_yearly_run
from hand1000.config.schedules import read_schedules
from hand1000.core.errors import Hand1000Error

FILE = Path(__file__).parents[2] / "workflows" / "schedules.yaml"
START = datetime.datetime(2026, 11, 27, 12, 30, 15, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 1 * * 7", "day of week '7': out of range; give 0 to 6, sun to sat, N-M, */STEP"),
        ("0 1 * * 5-7", "day of week '5-7': out of range"),
        ("0 22-2 * * *", "hour '22-2': ends before it begins"),
        ("0 1 L * *", "day of month 'L': 'L' is no number"),
        ("0 1 * * 5#2", "day of week '5#2': '5#2' is no number"),
        ("0 1 * * L5", "day of week 'L5': 'L5' is no number"),
        ("R 1 * * *", "minute 'R': 'R' is no number"),
        ("0 1 * * monday", "'monday' is no number"),
        ("*/0 * * * *", "minute '*/0': the step is not positive"),
        ("1/2/3 * * * *", "too many slashes"),
        ("1-2-3 * * * *", "too many hyphens"),
        ("1- * * * *", "'' is no number"),
        ("60 * * * *", "out of range"),
        ("0 0 0 * *", "day of month '0': out of range"),
        ("0 0 * 13 *", "month '13': out of range; give 1 to 12, jan to dec"),
        ("٣ * * * *", "is no number"),
        ("9" * 5000 + " * * * *", "is no number"),
        ("0 1 * *", "4 fields; write five"),
        ("0 0 1 * * 1", "6 fields; write five"),
        ("", "0 fields; write five"),
        ("hourly", "1 fields; write five"),
        ("@Hourly", "choose one of @yearly"),
        ("@every 1h", "choose one of @yearly"),
        ("@reboot", "choose one of @yearly"),
        ("CRON_TZ=UTC 0 1 * * *", "takes no time zone; write the time in UTC"),
    ],
)
def test_what_the_scheduler_cannot_read_is_refused(cron: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_cron(cron)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("cron", "runs"),
    [
        ("0 1 * * 1", ["2026-11-30 01:00", "2026-12-07 01:00", "2026-12-14 01:00"]),
        ("30 12 * * *", ["2026-11-28 12:30", "2026-11-29 12:30", "2026-11-30 12:30"]),
        ("31 12 ? nov-DEC Fri", ["2026-11-27 12:31", "2026-12-04 12:31", "2026-12-11 12:31"]),
        ("0 0 13 * 5", ["2026-12-04 00:00", "2026-12-11 00:00", "2026-12-13 00:00"]),
        ("0 0 */15 * */6", ["2026-11-28 00:00", "2026-11-29 00:00", "2026-12-01 00:00"]),
        ("0 0 */1 * 5", ["2026-12-04 00:00", "2026-12-11 00:00", "2026-12-18 00:00"]),
        ("50/5 23 28,30 * *", ["2026-11-28 23:50", "2026-11-28 23:55", "2026-11-30 23:50"]),
        ("*/70 * * * *", ["2026-11-27 13:00", "2026-11-27 14:00", "2026-11-27 15:00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00", "2036-02-29 00:00"]),
        ("0 1 31 2 *", []),
        (", * * * *", []),
        ("@monthly", ["2026-12-01 00:00", "2027-01-01 00:00", "2027-02-01 00:00"]),
        ("@weekly", ["2026-11-29 00:00", "2026-12-06 00:00", "2026-12-13 00:00"]),
    ],
)
def test_next_runs_are_those_of_the_scheduler(cron: str, runs: list[str]) -> None:
    assert [f"{run:%Y-%m-%d %H:%M}" for run in parse_cron(cron).next_runs(START, 3)] == runs


@pytest.mark.parametrize(("cron", "message"), [("0 1 31 2 *", "never runs"), ("0 0 29 2 *", "in leap years only")])
def test_a_schedule_runs_in_every_year(cron: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_yearly_run(parse_cron(cron))
    for other in (*DESCRIPTORS, "0 0 29 2 1", "0 0 31 12 *"):
        require_yearly_run(parse_cron(other))


def _write(folder: Path, **changes: object) -> Path:
    values = yaml.safe_load(FILE.read_text())
    values["rows"][0] |= changes
    path = folder / "schedules.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize(
    ("cron", "message"), [("0 1 * * 7", "day of week"), ("0 1 * * 1,,2", "flytekit does not read")]
)
def test_a_row_is_read_by_scheduler_and_flytekit(cron: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(Hand1000Error, match=f"rows.0.cron: {message}"):
        read_schedules(_write(tmp_path, cron=cron))


def test_the_command_lists_the_next_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, cron="@yearly", active=False)
    assert main(["schedules", "list", str(path), "--runs", "2"]) == 0
    header, first, second, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["gesture", "active", "cron", "next", "runs", "(UTC)"]
    assert first.split() == ["call", "no", "@yearly", "-"]
    assert second.startswith("four     yes     0 1 * * 2  Tue 20") and second.count("01:00") == 2
    assert main(["schedules", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: valid, 6 rows\n"
    assert main(["schedules", "check", str(_write(tmp_path, cron="0 1 31 2 *"))]) == 2
    assert "rows.0.cron: never runs" in capsys.readouterr().err
