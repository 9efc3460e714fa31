"""What goes in and what comes out, to the letter, by clients that know nothing of Kizuna."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.space import Read, Space, purchase, refund, touchpoint

READERS = [Space.read, Space.read_with_confluent]


@pytest.fixture(scope="module")
def space(module_space: Callable[..., Space]) -> Space:
    made = module_space(clock="event")
    made.worker()
    return made


def send(space: Space, client: str, events: list[dict[str, Any]]) -> None:
    if client == "kafka-python":
        space.publish(events)
        return
    producer = space.confluent(partitioner="murmur2_random")
    for event in events:
        name = "touchpoints" if event["type"] == "touchpoint" else "purchases"
        producer.produce(space.topic(name), json.dumps(event), key=event["customer_id"])
    assert producer.flush(30) == 0


def of(records: list[Read], customer: str) -> list[Read]:
    return [record for record in records if record.key == customer.encode()]


@pytest.mark.parametrize("client", ["kafka-python", "confluent-kafka"])
def test_events_give_tier_changes_table_hash_and_dump_as_the_contract_has_them(
    space: Space, client: str
) -> None:
    one, other = f"900-{client}", f"only-touched/{client}"
    send(space, client, [touchpoint(one, 1, "email", "outbound", "2017-04-01T10:00:00Z")])
    send(space, client, [touchpoint(other, 1, "web", "inbound", "2017-04-01T10:00:00Z")])
    space.wait_read()
    events = [
        purchase(one, 1, "60.00", "2017-04-01T12:00:00Z"),
        purchase(one, 2, 50.0, "2017-04-02T13:53:26.000999+02:00"),
        refund(one, 3, "o1", "60.00", "2017-04-03T00:00:00Z", source="pos"),
    ]
    send(space, client, events)
    space.wait_read()

    version = space.program.version
    bodies = [
        f'{{"event_id":"shop/{one}/1","customer_id":"{one}","tier_seq":1,"previous_tier":"member",'
        '"tier":"silver","direction":"upgrade","reason":"purchase","cause_source":"","cause_event_id":"e2",'
        f'"effective_at":"2017-04-02T11:53:26.000Z","program":{{"id":"shop","version":"{version}"}},'
        '"rfm":{"recency_seconds":0,"frequency":2,"monetary":"110.00","currency":"USD","r":5,"f":2,"m":2},'
        '"contacts":{"email":{"inbound":0,"outbound":1}}}',
        f'{{"event_id":"shop/{one}/2","customer_id":"{one}","tier_seq":2,"previous_tier":"silver",'
        '"tier":"member","direction":"downgrade","reason":"refund","cause_source":"pos","cause_event_id":"e3",'
        f'"effective_at":"2017-04-03T00:00:00.000Z","program":{{"id":"shop","version":"{version}"}},'
        '"rfm":{"recency_seconds":43594,"frequency":1,"monetary":"50.00","currency":"USD","r":5,"f":1,"m":2},'
        '"contacts":{"email":{"inbound":0,"outbound":1}}}',
    ]
    for read in READERS:
        changes = of(read(space, "tier-changes"), one)
        assert [change.value for change in changes] == [body.encode() for body in bodies]
        assert {change.partition for change in changes} == {space.home(one)}
        for number, at, change in zip((1, 2), ("02T11:53:26", "03T00:00:00"), changes, strict=True):
            assert change.headers[:7] == [
                ("ce_specversion", b"1.0"),
                ("ce_type", b"loyalty.tier.changed.v1"),
                ("ce_source", b"/loyalty/shop"),
                ("ce_id", f"shop/{one}/{number}".encode()),
                ("ce_subject", one.encode()),
                ("ce_time", f"2017-04-{at}.000Z".encode()),
                ("content-type", b"application/json"),
            ]
            assert not {name for name, _ in change.headers[7:]} & {name for name, _ in change.headers[:7]}
        newest = of(read(space, "customer-tiers"), one)[-1]
        assert (newest.value, newest.headers) == (changes[-1].value, changes[-1].headers)

    assert space.readable(one) == {
        "tier": "member",
        "tier_seq": "2",
        "as_of": "2017-04-03T00:00:00.000Z",
        "frequency": "1",
        "monetary": "50.00",
        "last_purchase_at": "2017-04-02T11:53:26.000Z",
        "lifetime_orders": "1",
        "lifetime_monetary": "50.00",
    }
    lines = space.dump("2017-04-10T00:00:00Z")
    assert [json.loads(line)["customer_id"] for line in lines] == sorted(
        json.loads(line)["customer_id"] for line in lines
    )
    assert [line.decode() for line in lines if client.encode() in line] == [
        f'{{"customer_id": "{one}", "as_of": "2017-04-10T00:00:00.000Z", "tier": "member", "tier_seq": 2, '
        '"frequency": 1, "monetary": "50.00", "last_purchase_at": "2017-04-02T11:53:26.000Z", '
        '"r": 4, "f": 1, "m": 2, "lifetime_orders": 1, "lifetime_monetary": "50.00", '
        '"contacts": {"email": {"inbound": 0, "outbound": 1}}}',
        f'{{"customer_id": "{other}", "as_of": "2017-04-10T00:00:00.000Z", "tier": "member", "tier_seq": 0, '
        '"frequency": 0, "monetary": "0.00", "last_purchase_at": null, '
        '"r": 0, "f": 0, "m": 0, "lifetime_orders": 0, "lifetime_monetary": "0.00", '
        '"contacts": {"web": {"inbound": 1, "outbound": 0}}}',
    ]


@pytest.mark.parametrize("key", [None, b"", b"\xff\x00 key"])
def test_a_dead_letter_has_the_original_bytes_and_headers_and_says_why(
    space: Space, key: bytes | None
) -> None:
    value = b'{"no": "event", "key": %r}' % key if key is None else b"\xfe\xff" + key
    reason, detail = ("not_json", "value: ")
    sent = space.send("purchases", value, key, 1, [("trace", b"\x00\xff"), ("dlq-reason", b"mine")]).get(30)
    space.wait_read()
    for read in READERS:
        (letter,) = (r for r in read(space, "dead-letters") if r.value == value)
        assert letter.key == key
        names = ["dlq-reason", "dlq-detail", "dlq-topic", "dlq-partition", "dlq-offset", "dlq-timestamp"]
        assert letter.headers[:2] == [("trace", b"\x00\xff"), ("dlq-reason", b"mine")]
        assert [name for name, _ in letter.headers[2:]] == names
        said = letter.header
        assert said["dlq-reason"] == reason.encode()
        assert (said["dlq-detail"] or b"").startswith(detail.encode())
        assert said["dlq-topic"] == space.topic("purchases").encode()
        assert said["dlq-partition"] == b"1"
        assert said["dlq-offset"] == str(sent.offset).encode()
        assert said["dlq-timestamp"] == str(sent.timestamp).encode()


def test_a_cloud_event_in_binary_mode_counts_under_the_id_and_source_of_its_headers(space: Space) -> None:
    customer = "cloudy"
    body = purchase(customer, 1, "150.00", "2017-04-01T12:00:00Z", source="body")
    del body["event_id"]
    for number in (1, 1, 2):  # the same id twice: a duplicate, whatever its body
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_type", b"com.shop.sold"),
            ("ce_id", b"ce-%d" % number),
            ("ce_source", b"/till/7"),
        ]
        record = json.dumps(body | {"order_id": f"o{number}"}).encode()
        space.send("purchases", record, customer.encode(), headers=headers)
    space.send("purchases", b"{}", customer.encode(), headers=[("ce_specversion", b"0.3")])
    space.flush()
    space.wait_read()
    assert space.readable(customer)["lifetime_orders"] == "2"
    (change,) = space.changes(customer)
    assert (change["cause_source"], change["cause_event_id"]) == ("/till/7", "ce-1")
    (letter,) = of(space.read("dead-letters"), customer)
    assert (letter.header["dlq-reason"], letter.header["dlq-detail"]) == (
        b"invalid_event",
        b"ce_specversion: expected 1.0",
    )


def test_what_a_shop_aborts_does_not_count_and_what_it_commits_does(space: Space) -> None:
    customer = "transacted"
    producer = space.confluent(**{"transactional.id": space.name, "partitioner": "murmur2"})
    producer.init_transactions(30)
    for number, ends in ((1, producer.abort_transaction), (2, producer.commit_transaction)):
        producer.begin_transaction()
        event = purchase(customer, number, "20.00", "2017-04-01T12:00:00Z")
        producer.produce(space.topic("purchases"), json.dumps(event), key=customer)
        producer.produce(space.topic("purchases"), b"poison %d" % number, key=customer)
        assert producer.flush(30) == 0
        ends(30)
    space.wait_read()
    assert space.readable(customer)["monetary"] == "20.00"
    assert [letter.value for letter in of(space.read("dead-letters"), customer)] == [b"poison 2"]
