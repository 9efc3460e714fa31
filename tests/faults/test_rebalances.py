"""Workers come and go: after every rebalance partition p of all inputs is with one worker, and nothing is lost."""

import random
from collections.abc import Callable

import pytest

from tests.faults.load import Load, stream
from tests.faults.processes import assigned, held, launch, progress, together
from tests.faults.sections import BONDED
from tests.faults.verifier import verify
from tests.space import Space, Worker, wait_until


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_twenty_rebalances_each_after_progress(new_space: Callable[..., Space]) -> None:
    space = new_space(partitions=6, **BONDED)
    random_ = random.Random(20)
    load = Load(space, stream(6))
    load.send(2_000)
    workers: list[Worker] = [launch(space).wait_ready()]
    with load:
        for _ in range(20):
            wait_until(progress(space), 40, "progress before the rebalance")
            if len(workers) == 1 or (len(workers) == 2 and random_.random() < 0.5):
                workers.append(launch(space).wait_ready())
            else:
                workers.pop(random_.randrange(len(workers))).stop()
                wait_until(lambda: not space.all_is_read(), 2, "work left by the one that went")
            spread(space, workers)
        load.stop()
        # All at once, with work left.
        load.send(3_000)
        workers.append(launch(space))
        workers[0].stop()
        spread(space, workers[1:])
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict


def spread(space: Space, workers: list[Worker]) -> None:
    """Wait until the group is at rest: these workers hold all shards, as the broker gave them, p of all inputs to
    one."""

    def at_rest() -> bool:
        given = assigned(space)
        shards = sorted(sorted({p for _, p in part}) for part in given.values())
        # One that has only just joined has none yet.
        here = all(shards) and shards == sorted(held(worker) for worker in workers)
        return here and together(given, space.partitions)

    wait_until(at_rest, 60, "a group at rest, partition p of all inputs with one worker")
