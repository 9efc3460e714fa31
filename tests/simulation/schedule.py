"""A seed's schedule, from nothing to its verdict."""

import gc
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.simulation import inputs
from tests.simulation.faults import KINDS
from tests.simulation.verdict import judge
from tests.simulation.virtual_time import DeadlockError, VirtualLoop
from tests.simulation.world import StuckError, World


@dataclass(slots=True)
class Result:
    """What became of one seed."""

    seed: int
    #: What does not hold, a line each; none where all does.
    problems: list[str]
    #: What happened, and how often.
    counts: Counter[str]
    #: A sum over everything that happened, in order.
    digest: int
    told: list[str] = field(default_factory=list)


def run(seed: int, kinds: dict[str, int] | None = None, *, tell: bool = False) -> Result:
    """Run one schedule. The same seed and kinds of fault always give the same result."""
    rng = Random(seed)
    scenario = inputs.draw(rng)
    loop = VirtualLoop()
    # A collection in the midst of it would run finalisers at a moment that no seed decides.
    gc.disable()
    try:
        return _run(seed, loop, World(loop, rng, scenario, KINDS if kinds is None else kinds, tell))
    finally:
        gc.enable()


def _run(seed: int, loop: VirtualLoop, world: World) -> Result:
    problems: list[str] = []
    try:
        loop.run_until_complete(world.run())
    except (DeadlockError, StuckError) as error:
        problems.append(f"stuck: {error}")
    else:
        problems += world.failures
        if not problems:
            problems += judge(world)
    finally:
        world.tear_down()
        loop.finish()
    problems += loop.unhandled
    world.counts["schedules"] += 1
    world.counts["records"] += len(world.scenario.sent)
    world.counts["rebalances"] += world.group.rebalances
    world.counts["shards moved"] += world.group.moved
    world.counts["fenced"] += world.kafka.fenced
    world.counts["generation refused"] += world.group.refused
    world.counts["changes"] += len(world.kafka.published())
    return Result(seed, problems, world.counts, world.digest, world.told or [])
