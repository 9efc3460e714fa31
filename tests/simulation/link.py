"""How a worker's calls reach Redis and Kafka: with delays, faults at every await, and death.

Every call has two points at which something may happen: before its effect and after it. What a dead process asked for
is never answered; what it had sent already may still take effect.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from streams.protocols import RefusedError, UnavailableError

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

REDIS = "redis"
KAFKA = "kafka"
#: Another thread of the same process: it may be slow, and it dies with the rest, but it does not fail.
PROCESS = "process"


class Link:
    """One process's connections."""

    def __init__(self, world: "World", name: str, is_healing: Callable[[], bool]) -> None:
        """`is_healing`: whether the process has not yet taken over all that was published."""
        self.world = world
        self.is_healing = is_healing
        self.name = name
        self.alive = True
        #: Set while the process is suspended: done when it goes on.
        self.asleep: asyncio.Future[None] | None = None
        self.was_asleep = False
        #: Calls whose answer is awaited, by name.
        self.under_way: dict[str, int] = {}

    async def awake(self) -> None:
        """A point at which the process must be there to go on."""
        while self.alive and self.asleep is not None:
            await asyncio.shield(self.asleep)
        if not self.alive:
            await self.world.never

    async def call(self, side: str, what: str, effect: Callable[[], T]) -> T:
        """Ask one server for something. Raises what `effect` raises, and UnavailableError."""
        world = self.world
        self.under_way[what] = self.under_way.get(what, 0) + 1
        try:
            await self.awake()
            if delay := world.delay():
                await asyncio.sleep(delay)
            trouble = world.faults.cross(self, side, what, "before") or world.trouble(side)
            await self.awake()
            if trouble is not None:
                return await self._in_trouble(trouble, side, what, effect)
            try:
                outcome = effect()
            except RefusedError as error:
                world.refused(self, what, error)
                raise
            finally:
                world.trace(self.name, what)
            lost = world.faults.cross(self, side, what, "after")
            if delay := world.delay():
                await asyncio.sleep(delay)
            await self.awake()
            if lost is not None:
                world.count(f"{side} answer lost")
                raise UnavailableError(f"{side}: the answer was lost")
            return outcome
        finally:
            self.under_way[what] -= 1

    async def _in_trouble(self, trouble: str, side: str, what: str, effect: Callable[[], T]) -> T:
        """The call fails before its effect, after it, or its effect comes when nobody waits any more."""
        world = self.world
        world.trace(self.name, what, trouble)
        if trouble == "after":
            try:
                effect()
            except RefusedError as error:
                world.refused(self, what, error)
            world.count(f"{side} answer lost")
        elif trouble == "late":
            self.later(what, effect)
            world.count(f"{side} effect late")
        else:
            world.count(f"{side} unavailable")
        await asyncio.sleep(world.rng.choice((0.001, 0.01, 0.3)))
        await self.awake()
        raise UnavailableError(f"{side} does not answer")

    def later(self, what: str, effect: Callable[[], object]) -> None:
        """What is on its way arrives all the same, and nobody hears the answer."""

        def arrive() -> None:
            try:
                effect()
            except Exception as error:
                # Whatever it is, a server told it to a closed connection.
                self.world.trace(self.name, what, "late", type(error).__name__)
            else:
                self.world.trace(self.name, what, "late")

        world = self.world
        world.loop.call_later(world.rng.choice((0.01, 0.2, 1.0, 3.0)), arrive)
