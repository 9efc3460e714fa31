"""What the worker refuses to start on."""

import pytest

from schemas.program import Program
from streams.protocols import INPUTS, PURCHASES, TOUCHPOINTS, FatalError
from streams.settings import Settings
from streams.topics import (
    COPARTITIONED,
    CUSTOMER_TIERS,
    DEAD_LETTERS,
    TIER_CHANGES,
    Cluster,
    check,
    configs,
    faults,
    said,
)

LEDGER = 1_000_000


@pytest.fixture
def cluster() -> Cluster:
    """As `kizuna topics create` leaves it."""
    return Cluster("c1", dict.fromkeys(configs(-1), 6), {n: dict(c) for n, c in configs(-1).items()})


def test_topics_as_they_are_created_have_no_faults(cluster: Cluster) -> None:
    assert faults(cluster, Settings(), LEDGER) == []


def test_the_table_of_topics_is_the_contracts() -> None:
    made = configs(77)
    assert set(made) == {*INPUTS, TIER_CHANGES, CUSTOMER_TIERS, DEAD_LETTERS}
    for name in INPUTS:
        assert made[name]["message.timestamp.type"] == "LogAppendTime"
        assert made[name]["retention.ms"] == "77"
    assert made[TIER_CHANGES]["retention.ms"] == "77"
    assert made[CUSTOMER_TIERS] == {"cleanup.policy": "compact"}
    assert made[DEAD_LETTERS]["retention.ms"] == "-1"
    larger = int(made[DEAD_LETTERS]["max.message.bytes"]) - int(made[PURCHASES]["max.message.bytes"])
    assert larger == 64 * 1024


def test_missing_topics_are_named_with_what_to_do(cluster: Cluster) -> None:
    del cluster.partitions[PURCHASES], cluster.partitions[DEAD_LETTERS]
    [fault] = faults(cluster, Settings(topic_prefix="x."), LEDGER)
    assert fault == "topics are missing: x.purchases, x.dead-letters (kizuna topics create)"


@pytest.mark.parametrize("name", COPARTITIONED)
def test_topics_that_differ_in_partitions_are_refused(cluster: Cluster, name: str) -> None:
    cluster.partitions[name] = 7
    [fault] = faults(cluster, Settings(), LEDGER)
    assert fault.startswith("topics differ in partitions: ")
    assert f"loyalty.{name} 7" in fault


def test_dead_letters_may_have_any_number_of_partitions(cluster: Cluster) -> None:
    cluster.partitions[DEAD_LETTERS] = 1
    assert faults(cluster, Settings(), LEDGER) == []


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("message.timestamp.type", "CreateTime", "must be LogAppendTime, it is CreateTime"),
        ("cleanup.policy", "compact", "must be delete, it is compact"),
        ("cleanup.policy", "compact,delete", "must be delete, it is compact,delete"),
        ("retention.bytes", "1000", "must be -1, 1000 bytes"),
        ("retention.ms", "999999", "keeps 999999 ms"),
        ("retention.ms", "0", "keeps 0 ms"),
    ],
)
def test_an_input_that_does_not_keep_or_tell_what_is_needed_is_refused(
    cluster: Cluster, name: str, key: str, value: str, told: str
) -> None:
    cluster.configs[name][key] = value
    [fault] = faults(cluster, Settings(), LEDGER)
    assert fault.startswith(f"topic loyalty.{name}: ")
    assert told in fault


def test_an_input_may_keep_just_the_ledger(cluster: Cluster) -> None:
    cluster.configs[PURCHASES]["retention.ms"] = str(LEDGER)
    assert faults(cluster, Settings(), LEDGER) == []


def test_where_no_program_is_known_any_retention_will_do(cluster: Cluster) -> None:
    cluster.configs[PURCHASES]["retention.ms"] = "1"
    assert faults(cluster, Settings(), None) == []


def test_all_faults_come_in_one_line(cluster: Cluster, grocery: Program) -> None:
    assert check(cluster, Settings(), grocery) == 6
    cluster.configs[PURCHASES]["cleanup.policy"] = "compact"
    cluster.configs[TOUCHPOINTS]["retention.ms"] = "5"
    with pytest.raises(FatalError) as caught:
        check(cluster, Settings(), grocery)
    assert str(caught.value).count(";") == 1
    assert "\n" not in str(caught.value)


def test_an_error_is_said_in_a_line() -> None:
    assert said(OSError("no\nroute")) == "OSError: no route"
