"""One decision at a time for each reviewer's model, on an embedded MLflow and on a server.

A server has no locks and no compare-and-set. Lamport's bakery algorithm needs neither: each process writes only its own
tag of the registered model, draws a ticket higher than all that it reads there, and waits for the lower ones.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import uuid4

from filelock import FileLock, Timeout

from hand1000.core.documents import load_json
from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking

LOCK = "hand1000.lock."
"""Prefix of the tags of the processes that decide at this moment."""

WAIT_SECONDS = 45.0
HOLD_SECONDS = 10.0
EXPIRY_SECONDS = 15.0
"""A claim that does not change for this long belongs to a dead process: a live one holds the lock for less, and renews
its claim more often while it waits."""

_RENEWAL_SECONDS = 4.0
_POLL_SECONDS = 0.2
_CHOOSING = 0


@dataclass
class ReviewLock:
    """The lock while it is held.

    Attributes:
        expires: Monotonic time in seconds, after which others may take the lock.
    """

    expires: float

    def check(self) -> None:
        """Refuse to write any more if others may hold the lock by now.

        Raises:
            Hand1000Error: This process was suspended, or the server was slow.
        """
        if time.monotonic() > self.expires:
            raise Hand1000Error(
                f"the decision took longer than {HOLD_SECONDS:.0f} s, so that another may have come first; "
                "see `hand1000 review history GESTURE`, then decide again"
            )


@contextmanager
def review_lock(tracking: Tracking, name: str, who: str) -> Iterator[ReviewLock]:
    """Exclude other reviewers of the registered model `name`, which exists.

    Args:
        tracking: Connection whose user may edit the model.
        name: The reviewer's model.
        who: The reviewer, for the message to others.

    Raises:
        Hand1000Error: Another decision is being made.
    """
    if tracking.lock_file is not None:
        try:
            with FileLock(tracking.lock_file, timeout=WAIT_SECONDS):
                yield ReviewLock(float("inf"))
        except Timeout:
            raise Hand1000Error(f"{tracking.lock_file}: another process writes to this MLflow; try again") from None
        return
    claim = _Claim(tracking, name, who)
    try:
        claim.wait_for_turn()
        yield ReviewLock(time.monotonic() + HOLD_SECONDS)
    finally:
        claim.withdraw()


@dataclass
class _Claim:
    """The tag of this process, and what it saw of the others."""

    tracking: Tracking
    name: str
    who: str
    key: str = field(default_factory=lambda: f"{LOCK}{uuid4().hex}")
    writes: int = 0
    seen: dict[tuple[str, str], float] = field(default_factory=dict)

    def wait_for_turn(self) -> None:
        """Draw a ticket, and return once all lower ones are withdrawn or expired.

        Raises:
            Hand1000Error: Another reviewer still decides after `WAIT_SECONDS`, or MLflow refuses.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        self._write(_CHOOSING)
        ticket = 1 + max((number for number, _, _ in self._read()), default=0)
        self._write(ticket)
        renewed = time.monotonic()
        while True:
            claims = self._read()
            earlier = sorted(claim for claim in claims if claim[:2] < (ticket, self.key))
            is_alive = any(key == self.key for _, key, _ in claims)
            if is_alive and not earlier:
                # Renewed once more, so that those who wait count the time from here.
                self._write(ticket)
                return
            if not is_alive or time.monotonic() > deadline:
                who = earlier[0][2] if earlier else "another reviewer"
                raise Hand1000Error(f"{self.name}: {who} is deciding at this moment; try again in a minute")
            time.sleep(_POLL_SECONDS)
            if time.monotonic() - renewed > _RENEWAL_SECONDS:
                self._write(ticket)
                renewed = time.monotonic()

    def withdraw(self) -> None:
        """Remove the claim; one that cannot be removed expires."""
        with suppress(Hand1000Error), self.tracking.readable_errors():
            self.tracking.client.delete_registered_model_tag(self.name, self.key)

    def _write(self, ticket: int) -> None:
        self.writes += 1
        value = json.dumps({"ticket": ticket, "who": self.who, "writes": self.writes})
        with self.tracking.readable_errors():
            self.tracking.client.set_registered_model_tag(self.name, self.key, value)

    def _read(self) -> list[tuple[int, str, str]]:
        """Return ticket, key and reviewer of each claim that is alive, and delete the others."""
        with self.tracking.readable_errors():
            tags = self.tracking.client.get_registered_model(self.name).tags
        now, claims = time.monotonic(), []
        for key, value in tags.items():
            if not key.startswith(LOCK):
                continue
            # This process is alive, however long an answer of the server took.
            if key != self.key and now - self.seen.setdefault((key, value), now) > EXPIRY_SECONDS:
                with self.tracking.readable_errors():
                    self.tracking.client.delete_registered_model_tag(self.name, key)
                continue
            claims.append(_parse_claim(key, value))
        return claims


def _parse_claim(key: str, value: str) -> tuple[int, str, str]:
    """Return ticket, key and reviewer; a claim that nobody can read goes first until it expires."""
    with suppress(ValueError, TypeError, KeyError, OverflowError):
        claim = load_json(value)
        return int(claim["ticket"]), key, str(claim["who"])
    return _CHOOSING, key, "an unreadable claim"
