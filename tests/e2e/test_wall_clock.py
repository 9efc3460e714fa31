"""Time alone brings a customer down, at the exact instant, once, and never past what is still unread."""

from collections.abc import Callable
from typing import Any

from tests.space import Space, now_ms, purchase, text_of, wait_until

WINDOW = 60_000


def space_of(new_space: Callable[..., Space]) -> Space:
    return new_space(partitions=1, window="60s", ledger="1h", silver="10.00")


def falls(space: Space, customer: str) -> list[dict[str, Any]]:
    return [body for body in space.changes(customer) if body["direction"] == "downgrade"]


def wait_fall(space: Space, customer: str, until: int) -> dict[str, Any]:
    seconds = (until - now_ms()) / 1000 + 10
    return wait_until(lambda: falls(space, customer), seconds, f"{customer} falls")[0]


def barrier(space: Space, customer: str) -> None:
    """Returns when another customer of the shard has fallen, whose fall was due later than all before."""
    at = now_ms() - WINDOW + 2_000
    space.publish([purchase(customer, 1, "10.00", at)])
    wait_fall(space, customer, at + WINDOW)


def test_without_any_event_a_customer_falls_at_the_exact_instant_and_soon_after_it(
    new_space: Callable[..., Space],
) -> None:
    space = space_of(new_space)
    space.worker()
    at = now_ms() - WINDOW + 4_000
    space.publish([purchase("900", 1, "10.00", at)])
    fall = wait_fall(space, "900", at + WINDOW)
    assert (fall["tier_seq"], fall["tier"], fall["reason"]) == (2, "member", "window_expiry")
    assert (fall["cause_source"], fall["cause_event_id"]) == (None, None)
    assert fall["effective_at"] == text_of(at + WINDOW)
    assert fall["rfm"] == {
        "recency_seconds": None,
        "frequency": 0,
        "monetary": "0.00",
        "currency": "USD",
        "r": 0,
        "f": 0,
        "m": 0,
    }
    record = next(r for r in space.read("tier-changes") if r.json == fall)
    assert 0 <= record.timestamp - (at + WINDOW) < 2_000
    assert space.readable("900")["tier"] == "member"


def test_a_restart_across_the_instant_brings_the_fall_once(new_space: Callable[..., Space]) -> None:
    space = space_of(new_space)
    worker = space.worker()
    at = now_ms() - WINDOW + 8_000
    space.publish([purchase("900", 1, "10.00", at)])
    space.wait_read()
    worker.stop()
    assert falls(space, "900") == []
    wait_until(lambda: now_ms() > at + WINDOW, 30)
    space.worker()
    assert wait_fall(space, "900", now_ms())["effective_at"] == text_of(at + WINDOW)
    barrier(space, "later")
    assert len(falls(space, "900")) == 1


def test_nobody_falls_who_has_a_purchase_in_what_is_still_unread(new_space: Callable[..., Space]) -> None:
    space = space_of(new_space)
    worker = space.worker()
    at = now_ms() - WINDOW + 8_000
    space.publish([purchase(c, 1, "10.00", at) for c in ("saved", "lost")])
    space.wait_read()
    worker.stop()
    # Before the instant, and unread when it comes.
    space.publish([purchase("saved", 2, "10.00", now_ms())])
    assert now_ms() < at + WINDOW, "this machine is too slow for this test"
    wait_until(lambda: now_ms() > at + WINDOW, 30)
    space.worker()
    assert wait_fall(space, "lost", now_ms())["effective_at"] == text_of(at + WINDOW)
    barrier(space, "later")
    assert [body["direction"] for body in space.changes("saved")][:1] == ["upgrade"]
    early = [body for body in falls(space, "saved") if body["effective_at"] <= text_of(at + WINDOW)]
    assert early == []
