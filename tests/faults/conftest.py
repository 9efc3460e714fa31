"""Namespaces for the fault tests: an event clock and a short window, so that customers rise and fall all the time."""

from collections.abc import Callable

import pytest

from tests.space import Space


@pytest.fixture
def space(new_space: Callable[..., Space]) -> Space:
    """Four shards; a month's window."""
    return new_space(partitions=4, clock="event", window="30d", ledger="120d", silver="100.00")
