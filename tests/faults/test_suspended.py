"""A worker that is suspended beyond its session, and comes back when its shards are another's: it is refused."""

import time

import pytest

from tests.faults.load import Load, stream
from tests.faults.processes import (
    SESSION,
    held,
    is_suspended,
    launch,
    resume,
    stepped,
    wait_all_held,
)
from tests.faults.stepped import Step
from tests.faults.verifier import verify
from tests.space import Space, wait_until


@pytest.mark.parametrize(
    ("step", "said"),
    [
        pytest.param(Step.BEFORE_COMMIT, "RefusedError", marks=pytest.mark.long),
        (Step.IN_TRANSACTION, "ProducerFenced"),
    ],
)
async def test_what_a_suspended_worker_finishes_when_its_shards_are_anothers_is_refused(
    space: Space, step: Step, said: str
) -> None:
    load = Load(space, stream(4))
    load.send(2_000)
    suspended = stepped(space, step, 3, how="STOP", after=1)
    other = launch(space)
    with load:
        suspended.wait_bitten()
        stopped_at = time.monotonic()
        assert not space.all_is_read()
        wait_all_held(space, other.wait_ready())
        assert time.monotonic() - stopped_at > SESSION - 1, "it was not out of its session"
        assert is_suspended(suspended.worker)
        taken = space.committed()
        wait_until(lambda: space.committed() > taken + 100, 30, "the other works")

        resume(suspended.worker)
        wait_until(
            lambda: suspended.file.read_text() == f"{step} {said}", 30, f"a call that ends with {said}"
        )
        # kizuna_shards_lost_total{cause="refused"} tells it where the group has not taken the shards away before.
        # It is a member again, and only then has shards; never the same as the other.
        wait_until(lambda: held(suspended.worker), 30, "shards of its own again")
        wait_all_held(space, suspended.worker, other)
        load.stop()
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict
