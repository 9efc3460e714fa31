"""Producers that hash differently, or forget the key, or have another one."""

import json
from collections import Counter
from collections.abc import Callable

from tests.space import DAY, Space, now_ms, purchase

CUSTOMERS = [f"c{n}" for n in range(24)]


def test_records_with_other_partitioners_and_keys_count_once_and_are_sent_on_once(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=4)
    space.worker()
    producer = space.confluent()  # librdkafka's default partitioner: CRC32, and anywhere without a key
    at = now_ms() - DAY
    for number, key in enumerate(("right", "null", "wrong")):
        for customer in CUSTOMERS:
            producer.produce(
                space.topic("purchases"),
                json.dumps(purchase(customer, number, "50.00", at + number)),
                key={"right": customer, "null": None, "wrong": f"not {customer}"}[key],
                headers=[("trace", b"1")],
            )
    assert producer.flush(30) == 0
    space.wait_read()

    records = space.read("purchases")
    rerouted = [r for r in records if "loyalty-rerouted" in r.header]
    misplaced = [
        r
        for r in records
        if r not in rerouted
        and (r.key != r.json["customer_id"].encode() or r.partition != space.home(r.json["customer_id"]))
    ]
    assert len(misplaced) > 2 * len(CUSTOMERS)  # some by CRC32 alone
    assert Counter(r.value for r in rerouted) == Counter(r.value for r in misplaced)
    for record in rerouted:
        customer = record.json["customer_id"]
        assert (record.key, record.partition) == (customer.encode(), space.home(customer))
        assert record.headers == [("trace", b"1"), ("loyalty-rerouted", b"1")]
    for customer in CUSTOMERS:
        hash_ = space.readable(customer)
        assert (hash_["lifetime_orders"], hash_["monetary"], hash_["tier"]) == ("3", "150.00", "silver")
        (change,) = space.changes(customer) if customer in CUSTOMERS[:3] else [None]
        assert change is None or change["tier"] == "silver"
    everyone = Counter(body["customer_id"] for body in space.changes())
    assert everyone == Counter(CUSTOMERS)
    assert len(space.dump(now_ms())) == len(CUSTOMERS)
    assert space.read("dead-letters") == []


def test_a_record_that_was_sent_on_and_is_wrong_still_is_a_dead_letter_and_moves_no_clock(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=3, clock="event", ledger="365d")
    space.worker()
    there, elsewhere = space.home("900"), (space.home("900") + 1) % 3
    neighbour = next(c for c in CUSTOMERS if space.home(c) == elsewhere)
    misplaced = json.dumps(purchase("900", 1, "500.00", "2017-06-01T00:00:00Z")).encode()
    for key, partition in ((b"900", elsewhere), (b"other", there)):
        space.send("purchases", misplaced, key, partition, [("loyalty-rerouted", b"1")])
    space.flush()
    # Two years before: too late, had the misplaced one moved the clock of where it was found.
    space.publish([purchase(neighbour, 1, "500.00", "2015-06-01T00:00:00Z")])
    space.wait_read()
    letters = space.read("dead-letters")
    assert [letter.header["dlq-reason"] for letter in letters] == [b"misrouted"] * 2
    assert {letter.key for letter in letters} == {b"900", b"other"}
    assert {letter.value for letter in letters} == {misplaced}
    assert space.readable("900") == {}
    assert space.readable(neighbour)["tier"] == "silver"
    assert len(space.read("purchases")) == 3
