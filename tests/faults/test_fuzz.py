"""Records that cannot be used: each is one dead letter, costs its neighbours nothing, and stops nobody unasked."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import confluent_kafka
import pytest

from streams.topics import INPUT_MAX_BYTES
from tests.faults.ending import ended, ending, verdict_of, watermarks
from tests.faults.fuzzing import Fuzzed, fuzz
from tests.faults.load import START, STEP, Load, Sent, stream
from tests.faults.processes import launch, metric
from tests.faults.reading import Follower, Inputs
from tests.faults.verifier import verify
from tests.space import Space, purchase

GOOD = 100_000
FUZZED = 1_000

Place = tuple[str, int, int]


def letters(space: Space) -> dict[Place, list[str]]:
    """The reasons of the dead letters by where the records stood."""
    found: dict[Place, list[str]] = {}
    for letter in Follower(space.stack.brokers, space.topic("dead-letters")).follow():
        header = {name: (value or b"").decode() for name, value in letter.headers[-6:]}
        topic = header["dlq-topic"].removeprefix(space.settings.topic_prefix)
        place = topic, int(header["dlq-partition"]), int(header["dlq-offset"])
        found.setdefault(place, []).append(header["dlq-reason"])
    return found


def send_all(space: Space, good: Iterator[Sent], count: int, odd: int, seed: int) -> dict[Place, Fuzzed]:
    """So many good records, with so many fuzzed ones among them; where each of those stands."""
    producer = space.confluent(
        **{
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 500_000,
            "log_level": 0,
        }
    )
    places: dict[Place, Fuzzed] = {}
    failed: list[Any] = []
    cut = len(space.settings.topic_prefix)

    def told(fuzzed: Fuzzed, error: Any, message: Any) -> None:
        if error is not None:
            failed.append((fuzzed.kind, str(error)))
        places[message.topic()[cut:], message.partition(), message.offset()] = fuzzed

    made = fuzz(seed)
    every, made_of = count // odd, 0
    for number, sent in enumerate(islice(good, count)):
        producer.produce(space.topic(sent.topic), sent.value, sent.key)
        if number % every == every - 1 and made_of < odd:
            made_of += 1
            # At the time that the good ones have reached: nothing is late.
            fuzzed = next(made)(START + (number + 1) * STEP)
            producer.produce(
                space.topic(fuzzed.topic),
                fuzzed.value,
                fuzzed.key,
                headers=fuzzed.headers,
                on_delivery=lambda error, message, fuzzed=fuzzed: told(fuzzed, error, message),
            )
        producer.poll(0)
    assert producer.flush(120) == 0
    assert not failed, failed[:3]
    assert len(places) == odd
    return places


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_a_thousand_fuzzed_records_among_a_hundred_thousand_good_ones(tiers_space: Space) -> None:
    """By construction it is known of each whether it can be used; the verifier computes it a second time."""
    space = tiers_space
    worker = launch(space).wait_ready()
    # Some of the good ones are second sends, and some of the stream are no events, either.
    places = send_all(space, stream(90), GOOD + 500, FUZZED, seed=91)
    verdict = await verify(space, seconds=240)
    assert verdict.is_clean, verdict
    assert verdict.promised > 1_000, verdict

    found = letters(space)
    bad = {place: fuzzed for place, fuzzed in places.items() if fuzzed.reasons}
    assert len(bad) > FUZZED // 2
    assert len({fuzzed.kind for fuzzed in places.values()}) == 30
    wrong = [
        (fuzzed.kind, fuzzed.value, found.get(place, []))
        for place, fuzzed in places.items()
        if not (
            len(found.get(place, [])) == 1 and found[place][0] in fuzzed.reasons
            if fuzzed.reasons
            else place not in found
        )
    ]
    assert not wrong, wrong[:5]
    for fuzzed in places.values():
        if not fuzzed.reasons and fuzzed.topic == "purchases":
            assert space.readable(fuzzed.customer)["lifetime_orders"] == "1", fuzzed

    assert worker.process.poll() is None
    assert metric(worker, "kizuna_take_overs_total") == space.partitions, "it had to begin again"
    assert metric(worker, "kizuna_shards_lost_total") == 0


class Bytes(str):
    """A header's name as clients in other languages send it, any bytes; Python's encode names."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


def test_names_of_headers_may_be_any_bytes(space: Space) -> None:
    """By kafka-python alone: the verifier's client cannot read them."""
    random_ = random.Random(92)
    launch(space).wait_ready()
    bad: list[Any] = []
    for number in range(300):
        event = purchase(f"c{number % 20}", number, "1.00", START + number * STEP)
        name = Bytes(random_.randbytes(random_.randrange(1, 40)).decode("latin-1"))
        headers = [("before", b"1"), (name, random_.randbytes(5)), ("after", b"2")] if number % 3 else []
        value, key = json.dumps(event).encode(), event["customer_id"].encode()
        space.send("purchases", value, key, headers=headers)
        if number % 10 == 0:
            bad.append(space.send("purchases", value[:-1], key, headers=[(Bytes("\xff\xfe"), b"x")]))
    space.flush()
    space.wait_read()
    sent = Counter((told.partition, told.offset) for told in (future.get(10) for future in bad))
    found = Counter(
        (int(r.header["dlq-partition"] or -1), int(r.header["dlq-offset"] or -1))
        for r in space.read("dead-letters")
    )
    assert found == sent
    assert {space.readable(f"c{n}")["lifetime_orders"] for n in range(20)} == {"15"}


# -- the largest ---------------------------------------------------------------------------------------------------


def largest(space: Space, shape: str, customer: str) -> confluent_kafka.Message:
    """A record of a shape, just as large as the broker takes one: one byte more, and it does not."""
    producer = space.confluent(**{"message.max.bytes": 4_000_000, "log_level": 0})

    def send(size: int) -> confluent_kafka.Message | None:
        parts: dict[str, Any] = {"key": b"k", "value": b"v", "headers": [("x", b"")]}
        filler = b"\xff" * size
        if shape == "all":
            parts = {"key": filler[::3], "value": filler[1::3], "headers": [("x", filler[2::3])]}
        elif shape == "many headers":
            # A header of ten bytes is two bytes more in the record.
            parts["headers"] = [("hhhh", b"123456")] * (size // 12) + [("x", b"\x00" * (size % 12))]
        else:
            parts[shape] = [("x", filler)] if shape == "headers" else filler
        told: list[Any] = []
        producer.produce(
            space.topic("purchases"),
            partition=space.home(customer),
            on_delivery=lambda *a: told.append(a),
            **parts,
        )
        assert producer.flush(30) == 0
        error, message = told[0]
        assert error is None or error.code() == confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE, error
        return message if error is None else None

    low, high = INPUT_MAX_BYTES - 2_000, INPUT_MAX_BYTES + 2_000
    taken = send(low)
    assert taken is not None
    while high - low > 1:
        middle = (low + high) // 2
        if (message := send(middle)) is None:
            high = middle
        else:
            low, taken = middle, message
    return taken


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("shape", ["value", "key", "headers", "many headers", "all"])
async def test_the_largest_dead_letter_does_not_stall_its_shard(space: Space, shape: str) -> None:
    """Each attempt that the broker took is a dead letter, too; neighbours before and behind them rise."""
    worker = launch(space).wait_ready()
    neighbours = [f"n{n}" for n in range(200) if space.home(f"n{n}") == space.home("n0")][:20]
    space.publish([purchase(c, f"{c}-1", "60.00", START) for c in neighbours])
    message = largest(space, shape, "n0")
    space.publish([purchase(c, f"{c}-2", "60.00", START + 1) for c in neighbours])
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert {body["customer_id"] for body in space.changes()} == set(neighbours)
    assert letters(space)["purchases", message.partition(), message.offset()] == ["too_large"]
    assert verdict.dead_letters >= 5, verdict
    assert metric(worker, "kizuna_shards_lost_total") == 0


# -- a flood -------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_a_flood_stops_the_worker_at_the_operators_limit_and_with_a_higher_one_all_is_there(
    space: Space,
) -> None:
    inputs = Inputs(space)
    load = Load(space, stream(93))
    load.send(2_000)
    worker = ending(space, KIZUNA_DEAD_LETTERS_LIMIT=60).wait_ready()
    space.wait_read()
    before = watermarks(space)
    for number in range(200):
        load.send(1) if number % 4 == 0 else None
        space.send("purchases", b"{oops %d" % number, b"flood")
    space.flush()
    load.send(200)
    line = ended(worker, "dead-letters")
    assert "more than 60 dead letters within a minute (KIZUNA_DEAD_LETTERS_LIMIT)" in line
    assert f"partition {space.home('flood')}" in line
    assert "nothing from position" in line
    assert "raise the limit to let them pass" in line
    assert (
        watermarks(space)["purchases", space.home("flood")] < before["purchases", space.home("flood")] + 200
    )
    verdict = await verdict_of(space, inputs.follow())
    assert verdict.is_clean, verdict
    flooded = sum(len(reasons) for reasons in letters(space).values())
    assert ended(ending(space, KIZUNA_DEAD_LETTERS_LIMIT=60), "dead-letters").startswith(line[:60])

    # The operator lets them pass, or has no limit, as is the default.
    worker = ending(space, KIZUNA_DEAD_LETTERS_LIMIT=500).wait_ready()
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert verdict.dead_letters >= 200 > flooded
    worker.stop()
    worker = ending(space).wait_ready()
    for number in range(1_000):
        space.send("purchases", b"{oops %d" % number, b"flood")
    space.flush()
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert verdict.dead_letters >= 1_200
    assert worker.process.poll() is None
