"""A worker that must not start says why, in one line, and exits non-zero."""

from collections.abc import Callable

import pytest
import redis
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from cli.local_stack import LocalStack, ValkeyServer
from streams import app
from streams.preflight import prepare
from streams.protocols import FatalError
from streams.topics import administration
from tests.space import Space, purchase


@pytest.fixture(scope="module")
def space(module_space: Callable[..., Space]) -> Space:
    """With topics, and with a store that a worker has begun."""
    made = module_space(clock="event", ledger="365d")
    worker = made.worker()
    made.publish([purchase("900", 1, "150.00", "2017-04-01T12:00:00Z")])
    made.wait_read()
    worker.stop()
    return made


def alter(space: Space, topic: str, **configs: str) -> None:
    with administration(space.settings) as admin:
        names = {name.replace("_", "."): value for name, value in configs.items()}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, space.topic(topic), names)])


def add_partitions(space: Space, count: int, *topics: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=space.stack.brokers)
    try:
        admin.create_partitions({space.topic(topic): count for topic in topics})
    finally:
        admin.close()


def test_where_topics_are_missing(new_space: Callable[..., Space]) -> None:
    space = new_space(topics=False)
    said = space.refusal()
    assert "topics are missing" in said
    assert space.topic("purchases") in said
    assert "kizuna topics create" in said


def test_where_topics_differ_in_partitions(new_space: Callable[..., Space]) -> None:
    space = new_space()
    add_partitions(space, 5, "touchpoints")
    said = space.refusal()
    assert "topics differ in partitions" in said
    assert f"{space.topic('touchpoints')} 5" in said


def test_where_inputs_keep_less_than_the_ledger(new_space: Callable[..., Space]) -> None:
    space = new_space(topics=False, ledger="365d")
    space.create_topics(retention_ms=364 * 86_400_000)
    said = space.refusal()
    assert "retention.ms" in said
    assert "ledger" in said
    assert space.topic("purchases") in said


def test_where_inputs_are_not_stamped_by_the_broker(new_space: Callable[..., Space]) -> None:
    space = new_space()
    alter(space, "touchpoints", message_timestamp_type="CreateTime")
    said = space.refusal()
    assert "LogAppendTime" in said
    assert space.topic("touchpoints") in said


def test_where_redis_evicts(space: Space, tmp_path: object) -> None:
    own = ValkeyServer(space.directory / "valkey")
    own.start()
    try:
        with redis.Redis(port=own.port) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        said = space.refusal(KIZUNA_REDIS_URL=f"redis://{own.address}/0")
    finally:
        own.stop()
    assert "allkeys-lru" in said
    assert "noeviction" in said


def test_where_no_redis_and_no_kafka_answer(space: Space) -> None:
    assert "no Redis answers" in space.refusal(KIZUNA_REDIS_URL="redis://127.0.0.1:1/0")
    assert "no Kafka broker answers" in space.refusal(KIZUNA_BROKERS="127.0.0.1:1")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('currency = "USD"', 'currency = "USD"\ncolour = "red"', "program.colour: unknown key"),
        ('min_monetary = "300.00"', 'min_monetary = "99.00"', "tiers[2].min_monetary"),
        ("min_frequency = 3", 'min_frequency = 3\nmax_recency = "365d"', "tiers[2].max_recency"),
        ('ledger = "365d"', 'ledger = "364d"', "program.ledger"),
        ("[scores]", "[scores", "expected TOML"),
    ],
)
def test_where_the_program_file_is_wrong_and_it_names_the_key(
    space: Space, old: str, new: str, named: str
) -> None:
    text = space.program_file.read_text()
    assert old in text
    wrong = space.directory / "wrong.toml"
    wrong.write_text(text.replace(old, new))
    said = space.refusal(KIZUNA_PROGRAM=wrong)
    assert named in said
    assert str(wrong) in said


def test_where_the_program_file_is_missing(space: Space) -> None:
    assert "cannot be read" in space.refusal(KIZUNA_PROGRAM=space.directory / "none.toml")


def test_where_the_store_was_built_for_another_version_of_the_program(space: Space) -> None:
    changed = space.directory / "changed.toml"
    changed.write_text(space.program_file.read_text().replace('"300.00"', '"301.00"'))
    said = space.refusal(KIZUNA_PROGRAM=changed)
    assert "the store was built for program version" in said
    assert space.program.version in said


def test_where_the_store_was_built_for_another_program(space: Space) -> None:
    changed = space.directory / "other.toml"
    changed.write_text(space.program_file.read_text().replace('id = "shop"', 'id = "bakery"'))
    said = space.refusal(KIZUNA_PROGRAM=changed)
    assert "the store was built for program 'shop', this worker has 'bakery'" in said


def test_where_the_store_was_built_for_another_group(space: Space) -> None:
    said = space.refusal(KIZUNA_GROUP="another")
    assert f"the store was built for group '{space.name}', this worker has 'another'" in said


def test_where_the_store_was_built_for_other_topics(space: Space, new_space: Callable[..., Space]) -> None:
    other = new_space()
    said = space.refusal(KIZUNA_TOPIC_PREFIX=other.settings.topic_prefix)
    assert f"the store was built for topic prefix '{space.name}.'" in said


def test_where_the_store_was_built_for_another_number_of_partitions(new_space: Callable[..., Space]) -> None:
    space = new_space(clock="event")
    space.worker().stop()
    topics = ("purchases", "touchpoints", "customer-commands", "tier-changes", "customer-tiers")
    add_partitions(space, 4, *topics)
    said = space.refusal()
    assert "the store was built for number of partitions '3', this worker has '4'" in said


def test_where_the_store_was_built_for_another_kafka_cluster(space: Space) -> None:
    shards = [f"{space.name}:{{{p}}}:shard" for p in range(space.partitions)]
    held = {shard: space.redis.hget(shard, "bound:cluster") for shard in shards}
    assert all(held.values())
    # As Redis would be beside a Kafka that was made anew.
    for shard in shards:
        space.redis.hset(shard, "bound:cluster", "the one before")
    try:
        said = space.refusal()
    finally:
        for shard, cluster in held.items():
            space.redis.hset(shard, "bound:cluster", cluster)
    assert "the store was built for Kafka cluster 'the one before'" in said


def test_where_the_store_is_empty_but_the_group_has_read(new_space: Callable[..., Space]) -> None:
    space = new_space(clock="event")
    space.worker()
    space.publish([purchase("900", 1, "150.00", "2017-04-01T12:00:00Z")])
    space.wait_read()
    # At once: the group is told how far it came even so.
    space.workers[0].stop()
    said = space.refusal(KIZUNA_REDIS_PREFIX=f"{space.name}-lost")
    assert "the store is empty, but group" in said


def test_where_fausts_compiled_parts_are_missing(
    space: Space, stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_CStreamIterator", None)
    with pytest.raises(FatalError, match="without its compiled parts"):
        app.build(space.settings, *prepare(space.settings))
