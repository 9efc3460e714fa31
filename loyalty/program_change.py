"""Which change of a program a state can follow (docs/tiers.md, "A new program")."""

from __future__ import annotations

import msgspec

from loyalty.contacts import ContactWindow
from schemas.program import Program, ProgramError


class Previous(msgspec.Struct, frozen=True):
    """The program before, the instant (epoch milliseconds) at which another took its place, and until when
    those who were there are protected."""

    program: Program
    at: int
    protect_until: int | None


def check_change(before: Program, after: Program, at: int | None) -> None:
    """Raises ``ProgramError``, naming the key, where the state of ``before`` lacks what ``after`` needs.

    ``at`` is the instant of the change in epoch milliseconds, None where it has been begun already.
    """
    if after.id != before.id:
        raise ProgramError(f"program.id: expected {before.id!r}: another id is another program")
    if after.currency != before.currency:
        raise ProgramError(
            f"program.currency: expected {before.currency!r}: what was counted cannot be converted"
        )
    if after.ledger > before.ledger:
        raise ProgramError(
            f"program.ledger: expected at most {_days(before.ledger)}, as before: what is older has been forgotten"
        )
    # Orders are kept for the ledger, by the newest event, which may be ahead of the clock.
    kept = max(before.window, before.ledger - before.max_future)
    if after.window > kept:
        raise ProgramError(
            f"program.window: expected at most {_days(kept)}, the ledger before less max_future: older orders have "
            "been forgotten"
        )
    if ContactWindow(after).reach > max(before.ledger, ContactWindow(before).reach):
        raise ProgramError("program.contact_window: expected no longer than touchpoints were kept before")
    later = after.publish_from is not None and after.publish_from != before.publish_from
    if later and at is not None and after.publish_from is not None and after.publish_from > at:
        raise ProgramError("program.publish_from: expected no later than now: changes would go unpublished")


def _days(ms: int) -> str:
    return f"{ms / 86_400_000:g}d"
