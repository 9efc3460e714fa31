"""What goes wrong in a schedule, and when: each fault waits for its time, then for a call that it fits."""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.link import KAFKA, PROCESS, REDIS, Link

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Kinds of fault, and how often each is drawn.
KINDS = {
    "kill": 6,
    "suspend": 4,
    "stop": 1,
    "join": 2,
    "redis error": 3,
    "kafka error": 3,
    "redis gone": 1,
    "kafka gone": 1,
    "lose": 8,
}
#: Calls at which a fault may wait, and how often each is drawn; "" is any.
_CALLS = {
    "": 4,
    "commit": 6,
    "decide": 4,
    "trim": 3,
    "send": 2,
    "number": 1,
    "begin": 1,
    "take_over": 2,
    "initialise": 1,
    "published": 1,
    "prove": 1,
    "peek": 1,
    "move": 1,
    "load": 1,
    "due": 1,
}
_FENCED_CALLS = ("begin", "send", "number", "decide", "commit", "trim")
_REDIS_CALLS = ("commit", "trim", "take_over", "load", "due", "peek", "now")
#: Seconds after which a fault that waits for a certain call takes any.
_PATIENCE = 3.0


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong."""

    kind: str
    at: float
    call: str
    phase: str
    #: Writes that are lost, and of which partition (None: all).
    writes: int = 0
    partition: int | None = None
    #: Seconds that it lasts.
    lasts: float = 0.0
    #: How a call fails: before its effect, after it, or with an effect that comes late.
    way: str = "before"
    #: Whether the connections break with a Redis that comes back without its last writes.
    breaks: bool = False
    #: Whether it waits for a worker that has not yet taken over all that was published.
    while_healing: bool = False


def draw(rng: Random, span: float, partitions: int, kinds: dict[str, int]) -> list[Fault]:
    """The faults of one schedule."""
    if not kinds:
        return []
    faults: list[Fault] = []
    if "lose" in kinds and rng.random() < 0.4:
        # Losses of what has just been published, again and again.
        for _ in range(rng.choice((2, 4, 8))):
            fault = _draw_one(rng, rng.random() * span, partitions, {"lose": 1})
            fault.call, fault.phase = rng.choice(("decide", "trim", "commit")), "after"
            fault.writes = rng.randint(1, 9)
            faults.append(fault)
    else:
        for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 3, 4, 6, 9))):
            faults.append(_draw_one(rng, rng.random() * span, partitions, kinds))
    for fault in list(faults):
        if fault.kind == "lose":
            # Others while it is being healed.
            for _ in range(rng.choice((0, 1, 1, 2))):
                other = _draw_one(rng, fault.at, partitions, kinds)
                other.while_healing = True
                faults.append(other)
    return sorted(faults, key=lambda fault: fault.at)


def _draw_one(rng: Random, at: float, partitions: int, kinds: dict[str, int]) -> Fault:
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    call = rng.choices(list(_CALLS), list(_CALLS.values()))[0]
    if kind == "suspend" and rng.random() < 0.6:
        # In the midst of something that must be refused when it goes on.
        call = rng.choice(_FENCED_CALLS)
    return Fault(
        kind=kind,
        at=at,
        call=call,
        phase=rng.choice(("before", "after")),
        writes=rng.choice((1, 1, 2, 3, 5, 8, 15, 40)),
        partition=rng.choice((None, rng.randrange(partitions))),
        lasts=rng.choice((0.2, 1.0, 2.5, 4.0, 8.0)),
        way=rng.choice(("before", "after", "late")),
        breaks=rng.random() < 0.5,
    )


class Faults:
    """The faults that wait for their call."""

    def __init__(self, world: "World", plan: list[Fault]) -> None:
        self._world = world
        self._armed: list[Fault] = []
        self.plan = plan
        for fault in plan:
            world.loop.call_later(fault.at, self._arm, fault)

    def _arm(self, fault: Fault) -> None:
        if not self._world.is_calm:
            self._armed.append(fault)

    def disarm(self) -> None:
        self._armed.clear()

    def cross(self, link: Link, side: str, what: str, phase: str) -> str | None:
        """A call is at one of its two points; how it fails, if it is to fail by itself."""
        if not self._armed:
            return None
        for fault in self._armed:
            if self._fits(fault, link, side, what, phase):
                self._armed.remove(fault)
                return self._strike(fault, link, what, phase)
        return None

    def _fits(self, fault: Fault, link: Link, side: str, what: str, phase: str) -> bool:
        if fault.while_healing and not link.is_healing():
            return False
        if fault.kind == "redis error" and side != REDIS:
            return False
        if fault.kind == "kafka error" and side != KAFKA:
            return False
        if self._world.loop.time() > fault.at + _PATIENCE:
            return True
        return fault.phase == phase and fault.call in ("", what)

    def _strike(self, fault: Fault, link: Link, what: str, phase: str) -> str | None:
        world = self._world
        world.trace("fault", fault.kind, link.name, what, phase)
        if link.is_healing():
            world.count("faults while something was pending")
        match fault.kind:
            case "kill":
                world.kill(link, fault)
            case "suspend":
                world.suspend(link, fault.lasts)
            case "stop":
                world.stop(link, fault.lasts)
            case "join":
                world.join()
            case "lose":
                world.lose(fault)
                if fault.breaks:
                    # It takes a while to come back, and meanwhile shops go on buying.
                    world.down[REDIS] = world.loop.time() + min(fault.lasts, 2.5)
                    if side_of(what) == REDIS:
                        return fault.way if phase == "before" else "after"
            case "redis gone":
                world.down[REDIS] = world.loop.time() + fault.lasts
            case "kafka gone":
                world.down[KAFKA] = world.loop.time() + fault.lasts
            case _:
                return fault.way if phase == "before" else "after"
        return None


def side_of(what: str) -> str:
    """Which server a call goes to."""
    if what == "move":
        return PROCESS
    return REDIS if what in _REDIS_CALLS else KAFKA
