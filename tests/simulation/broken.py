"""Safeguards, each broken: `python -m tests.simulation.broken no_caps` prints what the first schedule says that does
not hold, or nothing.

In a process of its own, and with the rules as plain Python: what is compiled cannot be replaced."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from loyalty.bonds import Bonds
from loyalty.contact_policy import ALLOWED, Policy
from loyalty.fold import Fold
from loyalty.holdout import Draw
from loyalty.scenarios import Scenarios
from streams import shards as shards_module
from streams import take_over as take_over_module
from streams.healing import Healing
from streams.protocols import Commit, Mark
from streams.redis_store import output_field
from streams.shard import Shard
from streams.sweeper import Sweeper
from tests.simulation.outside import LinkedLog, LinkedStore
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
    """Every process has a `transactional.id` of its own."""

    def own(self: LinkedLog, partition: int) -> str:
        return f"{self._link.name}-{partition}"

    patch.setattr(LinkedLog, "transactional_id", own)


def no_adoption(patch: Patch) -> None:
    """What was published is not read."""

    def init(self: Healing, *told: Any) -> None:
        original(self, {})

    original = Healing.__init__
    patch.setattr(Healing, "__init__", init)


def trim_before_it_is_out(patch: Patch) -> None:
    """The outbox is trimmed first."""

    async def publish(self: Shard) -> None:
        while not self._closed:
            entries, upto = await self.outbox.take(5_000, 4_000_000)
            await self._store.trim(self.partition, self._token, self.state.version, upto, {})
            records = [record for entry in entries for record in entry.records()]
            await self._writer.publish(records, Mark(upto, self.state.reign))
            self.outbox.drop(upto)
            self._metrics.published(self.partition, len(self.outbox), time.perf_counter())

    patch.setattr(Shard, "publish", publish)


def no_dedupe(patch: Patch) -> None:
    """An event that comes a second time counts a second time."""
    patch.setattr(Fold, "_is_known", lambda self, ids, key, newest: False)


def no_cut(patch: Patch) -> None:
    """While something is pending, batches are read as ever."""
    patch.setattr(shards_module, "cut", lambda batch, limit: (batch, None))


def swept_while_it_heals(patch: Patch) -> None:
    """What time brings is decided while the state does not know all that was published."""

    async def sweep(self: Shard, until: int, clock: int) -> None:
        async with self._in_lane():
            due = await self._store.due(self.partition, self._token, self.state.version, until, 500)
            if due.decision:
                await self._carry_out(due.decision)
            customers = await self._customers(due.customers)
            changes = [change for one in customers.values() for change in self.rules.advance(one, until)]
            if customers:
                await self._commit(Commit(), customers, changes, [])

    patch.setattr(Shard, "sweep", sweep)


def a_broken_lane_goes_on(patch: Patch) -> None:
    """After a commit that failed the next one is tried, with customers that are ahead of the store."""

    @asynccontextmanager
    async def in_lane(self: Shard) -> AsyncIterator[None]:
        async with self._lane:
            yield

    patch.setattr(Shard, "_in_lane", in_lane)


def time_does_not_wait_for_the_unread(patch: Patch) -> None:
    """A sweep goes up to now, whatever is unread."""
    patch.setattr(Sweeper, "_until", lambda self, shard, now, ends: now)


def bonds_are_not_read(patch: Patch) -> None:
    """What was published of bonds is not read at a take-over."""
    patch.setattr(take_over_module, "read_all_bonds", lambda partition, published: {})


def bonds_are_not_held(patch: Patch) -> None:
    """Decisions about a bond go on while the state does not know all that was published of it."""
    original = Shard._customers

    async def customers(self: Shard, ids: Any) -> Any:
        found = await original(self, ids)
        for customer in found.values():
            customer.bond_held = False
        return found

    patch.setattr(Shard, "_customers", customers)


def positions_move_alone(patch: Patch) -> None:
    """A trim tells the positions of those outputs in which something was published just now."""
    original = LinkedStore.trim

    async def trim(
        self: LinkedStore, partition: int, token: str, version: int, published: int, outputs: Any
    ) -> None:
        told = self._store.shard(partition).hash
        news = {t: at for t, at in outputs.items() if told.get(output_field(t)) != str(at)}
        await original(self, partition, token, version, published, dict(list(news.items())[-1:]))

    patch.setattr(LinkedStore, "trim", trim)


def a_store_that_lost_commits_is_trimmed(patch: Patch) -> None:
    """A trim does not ask whether the store still has what the worker goes by."""
    original = LinkedStore.trim

    async def trim(
        self: LinkedStore, partition: int, token: str, version: int, published: int, outputs: Any
    ) -> None:
        await original(self, partition, token, 0, published, outputs)

    patch.setattr(LinkedStore, "trim", trim)


def no_caps(patch: Patch) -> None:
    """Whoever asks for permission has it."""
    patch.setattr(Policy, "permission", lambda self, customer, channel, action, at: ALLOWED)


def no_goals(patch: Patch) -> None:
    """A run goes on, whatever the customer does."""
    patch.setattr(Scenarios, "_is_met", lambda self, *given: False)


def nobody_is_held_out(patch: Patch) -> None:
    """Triggers are sent to everybody."""
    patch.setattr(Draw, "_drawn", lambda self, scenario, customer_id, share: False)


def places_are_not_adopted(patch: Patch) -> None:
    """A trigger that was published takes no place under the caps where the store had lost it."""

    def adopt(self: Bonds, customer: Any, *told: Any) -> None:
        before = list(customer.bond.placed)
        original(self, customer, *told)
        customer.bond.placed = before

    original = Bonds._adopt_trigger
    patch.setattr(Bonds, "_adopt_trigger", adopt)


#: Each with the kinds of fault under which it is tried.
MUTANTS: Sequence[tuple[Callable[[Patch], None], dict[str, int]]] = (
    (no_owner, {"suspend": 1}),
    (no_seek, {"redis error": 1}),
    (no_fencing, {"suspend": 1}),
    (no_adoption, {"lose": 1}),
    (trim_before_it_is_out, {"kill": 1}),
    (no_dedupe, {}),
    (no_cut, {"lose": 1}),
    (a_broken_lane_goes_on, {"redis error": 1}),
    (time_does_not_wait_for_the_unread, {"redis gone": 1, "kill": 1}),
    (bonds_are_not_read, {"lose": 1}),
    (bonds_are_not_held, {"lose": 1}),
    (positions_move_alone, {"kill": 1}),
    (a_store_that_lost_commits_is_trimmed, {"lose": 1}),
    (no_caps, {}),
    (no_goals, {}),
    (nobody_is_held_out, {}),
)


#: Rare: something must fall due while a shard heals; a cap must be full of what was lost, and something due before it
#: lapses.
RARE_MUTANTS = (swept_while_it_heals, places_are_not_adopted)
_RARE_SEEDS = range(1, 3001)


def problems(name: str) -> list[str]:
    """What the first schedule says that finds the safeguard of this name broken. Raises KeyError for any other name."""
    usual = {break_it.__name__: (break_it, kinds, _SEEDS) for break_it, kinds in MUTANTS}
    rare = {break_it.__name__: (break_it, {"lose": 1}, _RARE_SEEDS) for break_it in RARE_MUTANTS}
    break_it, kinds, seeds = (usual | rare)[name]
    with pytest.MonkeyPatch.context() as patch:
        break_it(patch)
        return next((found for seed in seeds if (found := run(seed, kinds).problems)), [])


if __name__ == "__main__":
    print("\n".join(problems(sys.argv[1])))
