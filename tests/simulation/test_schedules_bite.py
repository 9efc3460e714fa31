"""The simulator can fail: with any one of these safeguards broken, some schedule does not hold."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from loyalty.fold import Fold
from streams import shards as shards_module
from streams.healing import Healing
from streams.outbox import Outbox
from streams.protocols import Commit, Mark
from streams.shard import Shard
from streams.shards import Shards
from streams.sweeper import Sweeper
from tests.simulation.kafka import Kafka, Producer
from tests.simulation.schedule import run
from tests.simulation.store import MemoryStore
from tests.simulation.worker import Worker

Patch = pytest.MonkeyPatch

#: Seeds that are tried; most mutants fall in the first dozen.
_SEEDS = range(1, 401)


def no_owner(patch: Patch) -> None:
    """Anybody may write. (A version that is checked still finds most of them, and the other way about.)"""
    patch.setattr(MemoryStore, "_check", lambda self, shard, token, version=None: None)


def no_seek(patch: Patch) -> None:
    """Reading goes on from where it was."""

    def move(self: Worker, positions: Any, epoch: int) -> None:
        original(self, positions | self._positions, epoch)

    original = Worker._move
    patch.setattr(Worker, "_move", move)


def no_fencing(patch: Patch) -> None:
    """A producer that was replaced may publish on."""

    def own(self: Kafka, name: str, epoch: int) -> Producer:
        return self.producers[name]

    patch.setattr(Kafka, "_own", own)


def no_adoption(patch: Patch) -> None:
    """What was published is not read."""

    def init(self: Healing, told: Any, unpublished: Any = ()) -> None:
        original(self, {}, ())

    original = Healing.__init__
    patch.setattr(Healing, "__init__", init)


def trim_before_it_is_out(patch: Patch) -> None:
    """The outbox is trimmed first."""

    async def publish(self: Shard) -> None:
        while not self._closed:
            entries, upto = await self.outbox.take(5_000, 4_000_000)
            await self._store.trim(self.partition, self._token, upto, None)
            records = [record for entry in entries for record in entry.records()]
            await self._writer.publish(records, Mark(upto, self.state.reign))
            self.outbox.drop(upto)
            self._metrics.published(self.partition, len(self.outbox), time.perf_counter())

    patch.setattr(Shard, "publish", publish)


def no_dedupe(patch: Patch) -> None:
    """An event that comes a second time counts a second time."""
    patch.setattr(Fold, "_is_known", lambda self, ids, key, newest: False)


def half_a_commit_is_published(patch: Patch) -> None:
    """A transaction may end in the midst of what one commit decided."""

    async def take(self: Outbox, limit: int, size_limit: int) -> tuple[list[Any], int]:
        await self._some.wait()
        return [self._pending[0]], self._first + 1

    patch.setattr(Outbox, "take", take)


def no_cut(patch: Patch) -> None:
    """While something is pending, batches are read as ever."""
    patch.setattr(shards_module, "cut", lambda batch, limit: (batch, None))


def swept_while_it_heals(patch: Patch) -> None:
    """What time brings is decided while the state does not know all that was published."""

    async def sweep(self: Shard, until: int, clock: int) -> None:
        async with self._in_lane():
            due = await self._store.due(self.partition, self._token, self.state.version, until, 500)
            customers = await self._customers(due.customers)
            changes = [change for one in customers.values() for change in self._rules.advance(one, until)]
            if customers:
                await self._commit(Commit(), customers, changes, [])

    patch.setattr(Shard, "sweep", sweep)


def a_broken_lane_goes_on(patch: Patch) -> None:
    """After a commit that failed the next one is tried, with customers that are ahead of the store."""

    def is_broken(self: Shard, name: str, value: Any) -> None:
        object.__setattr__(self, name, False if name == "_broken" else value)

    patch.setattr(Shard, "__setattr__", is_broken, raising=False)
    patch.setattr(
        Shards, "lose", lambda self, shard, error: self._lost.set() if "version" in str(error) else None
    )


def time_does_not_wait_for_the_unread(patch: Patch) -> None:
    """A sweep goes up to now, whatever is unread."""
    patch.setattr(Sweeper, "_until", lambda self, shard, now, ends: now)


def the_epoch_means_nothing(patch: Patch) -> None:
    """What was read before a take-over is handed on after it."""

    def hand(self: Shards, batch: Any, done: Callable[[], object]) -> None:
        batch.epoch = self.epoch
        original(self, batch, done)

    original = Shards.hand
    patch.setattr(Shards, "hand", hand)


MUTANTS: Sequence[Callable[[Patch], None]] = (
    no_owner,
    no_seek,
    no_fencing,
    no_adoption,
    trim_before_it_is_out,
    no_dedupe,
    half_a_commit_is_published,
    no_cut,
    swept_while_it_heals,
    a_broken_lane_goes_on,
    time_does_not_wait_for_the_unread,
    the_epoch_means_nothing,
)


@pytest.mark.parametrize("break_it", MUTANTS, ids=lambda one: one.__name__)
def test_a_broken_safeguard_is_found(break_it: Callable[[Patch], None], monkeypatch: Patch) -> None:
    break_it(monkeypatch)
    assert any(run(seed).problems for seed in _SEEDS)
