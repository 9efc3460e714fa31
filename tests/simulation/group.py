"""The group that reads the inputs: members, generations, eager rebalances, as a broker's coordinator has them.

A rebalance waits for every member it knows of to come again, and drops those who do not. Partition p of all inputs
goes to one member (range). An offset commit is taken in the present generation only.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streams.protocols import INPUTS, RefusedError

#: Seconds of silence after which a member is dropped, how long a rebalance waits for the others, and at most how
#: long a member does not notice one.
SESSION = 2.0
REBALANCE = 1.5
HEARTBEAT = 0.4


@dataclass(slots=True)
class Assignment:
    """What a member is told when a rebalance is over."""

    generation: int
    partitions: set[tuple[str, int]]


class Member:
    """One process's membership, as the coordinator knows it."""

    def __init__(self, name: str, notice: Callable[[], None]) -> None:
        self.name = name
        #: Called when the member has to come again; the call is the broker's answer to a heartbeat.
        self.notice = notice
        self.waiting: asyncio.Future[Assignment | None] | None = None
        self.generation = -1


class Group:
    """The coordinator."""

    def __init__(self, loop: asyncio.AbstractEventLoop, partitions: int) -> None:
        self._loop = loop
        self._partitions = partitions
        self.members: dict[str, Member] = {}
        self.generation = 0
        self._ends: asyncio.TimerHandle | None = None
        self.rebalances = 0
        self.refused = 0
        #: What the group has committed on the inputs.
        self.offsets: dict[tuple[str, int], int] = {}
        #: Who had which partition last.
        self.owners: dict[int, str] = {}
        self.moved = 0

    @property
    def is_preparing(self) -> bool:
        return self._ends is not None

    def join(self, member: Member) -> "asyncio.Future[Assignment | None]":
        """Come, or come again; done when the rebalance is over, with None for who was dropped meanwhile."""
        self.members[member.name] = member
        if member.waiting is None or member.waiting.done():
            member.waiting = self._loop.create_future()
        self._prepare()
        self._end_if_all()
        return member.waiting

    def leave(self, name: str) -> None:
        """A member goes, or was silent for too long."""
        member = self.members.pop(name, None)
        if member is None:
            return
        if member.waiting is not None and not member.waiting.done():
            member.waiting.set_result(None)
        if self.members:
            self._prepare()
            self._end_if_all()

    def _prepare(self) -> None:
        if self._ends is not None:
            return
        self._ends = self._loop.call_later(REBALANCE, self._end)
        for member in list(self.members.values()):
            if member.waiting is None or member.waiting.done():
                member.notice()

    def _end_if_all(self) -> None:
        if self._ends is not None and all(
            m.waiting is not None and not m.waiting.done() for m in self.members.values()
        ):
            self._ends.cancel()
            self._end()

    def _end(self) -> None:
        self._ends = None
        self.members = {n: m for n, m in self.members.items() if m.waiting and not m.waiting.done()}
        self.generation += 1
        self.rebalances += 1
        names = sorted(self.members)
        for index, name in enumerate(names):
            member = self.members[name]
            each, more = divmod(self._partitions, len(names))
            first = index * each + min(index, more)
            own = range(first, first + each + (index < more))
            for partition in own:
                self.moved += self.owners.get(partition, name) != name
                self.owners[partition] = name
            member.generation = self.generation
            assert member.waiting is not None
            member.waiting.set_result(Assignment(self.generation, {(t, p) for p in own for t in INPUTS}))

    def commit(self, name: str, generation: int, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit offsets. Raises RefusedError where this is no member of the present generation."""
        member = self.members.get(name)
        # A rebalance that is only being prepared still takes the commits of the generation before.
        if member is None or generation != self.generation or member.generation != generation:
            self.refused += 1
            raise RefusedError("the group does not take this worker's offsets: another generation")
        self.offsets |= offsets
