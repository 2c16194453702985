"""The grammar of the schedules that Flyte's scheduler runs, and the times at which they run.

Flyte's scheduler reads a schedule by `ParseStandard` of robfig/cron v3; one that it cannot read it only logs. This is
the same grammar, without time zones and `@every`, which flytekit refuses.
"""

import calendar
import datetime
import re
from dataclasses import dataclass

from hand1000.core.text import shorten

_SPACE = re.compile("[\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_INTEGER = re.compile("[+-]?[0-9]+", re.ASCII)
_MAX_INTEGER = 2**63 - 1
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if number}
_WEEKDAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _WEEKDAYS),
)
DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_COMMON_YEAR = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
_DAYS_SEARCHED = 5 * 366


@dataclass(frozen=True)
class Cron:
    """A schedule.

    Attributes:
        minutes: 0 to 59.
        hours: 0 to 23.
        days: Days of the month, 1 to 31.
        months: 1 to 12.
        weekdays: 0 (Sunday) to 6.
        either_day: Whether a day of the month or a day of the week is enough; both are needed if one of them is `*`.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def next_run(self, after: datetime.datetime) -> datetime.datetime | None:
        """Return the first run after a time in UTC, or None if five years have none."""
        start = after.replace(second=0, microsecond=0) + datetime.timedelta(minutes=1)
        day = start.replace(hour=0, minute=0)
        for _ in range(_DAYS_SEARCHED):
            if self._runs_on(day):
                times = (day.replace(hour=hour, minute=minute) for hour in self.hours for minute in self.minutes)
                if later := [time for time in times if time >= start]:
                    return min(later)
            day += datetime.timedelta(days=1)
        return None

    def next_runs(self, after: datetime.datetime, count: int) -> list[datetime.datetime]:
        """Return the first `count` runs after a time in UTC, or all of five years if they are fewer."""
        runs: list[datetime.datetime] = []
        while len(runs) < count and (run := self.next_run(runs[-1] if runs else after)):
            runs.append(run)
        return runs

    def _runs_on(self, day: datetime.datetime) -> bool:
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (in_month or in_week if self.either_day else in_month and in_week)


def parse_cron(text: str) -> Cron:
    """Parse a schedule: five fields (minute, hour, day of month, month, day of week), or one of `DESCRIPTORS`.

    A field is a list of `*`, `N` and `N-M`, each of which may have `/STEP`. Months and days of the week have names of
    three letters; a week is 0 (Sunday) to 6.

    Raises:
        ValueError: Names the field at fault and what it accepts.
    """
    if text.startswith("@") and text not in DESCRIPTORS:
        raise ValueError(f"{shorten(text)!r}: choose one of {', '.join(DESCRIPTORS)}, or write five fields")
    if text.startswith(("TZ=", "CRON_TZ=")):
        raise ValueError(f"{shorten(text)!r}: takes no time zone; write the time in UTC")
    parts = [part for part in _SPACE.split(DESCRIPTORS.get(text, text)) if part]
    if len(parts) != len(_FIELDS):
        raise ValueError(f"{len(parts)} fields; write five: {', '.join(name for name, *_ in _FIELDS)}")
    minutes, hours, days, months, weekdays = (
        _parse_field(part, *field) for part, field in zip(parts, _FIELDS, strict=True)
    )
    return Cron(
        minutes=minutes.values,
        hours=hours.values,
        days=days.values,
        months=months.values,
        weekdays=weekdays.values,
        either_day=not (days.has_star or weekdays.has_star),
    )


def require_yearly_run(cron: Cron) -> None:
    """Check that a schedule runs in every year.

    Raises:
        ValueError: It never runs, or in leap years only.
    """
    run = cron.next_run(_COMMON_YEAR - datetime.timedelta(minutes=1))
    if run is None:
        raise ValueError("never runs; there is no such date")
    if run.year > _COMMON_YEAR.year:
        raise ValueError("runs in leap years only; choose a day that every year has")


@dataclass(frozen=True)
class _Field:
    values: frozenset[int]
    has_star: bool


def _parse_field(text: str, name: str, low: int, high: int, names: dict[str, int]) -> _Field:
    values: set[int] = set()
    has_star = False
    try:
        for part in filter(None, text.split(",")):
            first, last, step, is_star = _parse_range(part, low, high, names)
            values.update(range(first, last + 1, step))
            has_star |= is_star
    except ValueError as error:
        accepted = f"{low} to {high}{f', {next(iter(names))} to {list(names)[-1]}' if names else ''}, N-M, */STEP"
        raise ValueError(f"{name} {shorten(text)!r}: {error}; give {accepted}") from error
    return _Field(frozenset(values), has_star)


def _parse_range(text: str, low: int, high: int, names: dict[str, int]) -> tuple[int, int, int, bool]:
    """Return first, last, step, and whether every value is meant."""
    span, *steps = text.split("/")
    begin, *ends = span.split("-")
    step = _parse_number(steps[0], {}) if steps else 1
    if begin in ("*", "?"):  # The scheduler reads no further: "*-5" is "*".
        first, last = low, high
    elif len(ends) > 1:
        raise ValueError("too many hyphens")
    else:
        first = _parse_number(begin, names)
        last = _parse_number(ends[0], names) if ends else first
    if len(steps) > 1:
        raise ValueError("too many slashes")
    if steps and not ends:
        last = high
    if first < low or last > high:
        raise ValueError("out of range")
    if first > last:
        raise ValueError("ends before it begins")
    if step < 1:
        raise ValueError("the step is not positive")
    return first, last, step, begin in ("*", "?") and step == 1


def _parse_number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if len(text) > 40 or not _INTEGER.fullmatch(text) or abs(int(text)) > _MAX_INTEGER:
        raise ValueError(f"{text[:20]!r} is no number")
    if int(text) < 0:
        raise ValueError("negative")
    return int(text)
