"""What the worker refuses to start on."""

import msgspec
import pytest

from schemas.program import Program
from schemas.program_bonds import Bonds
from streams.protocols import INPUTS, PURCHASES, TOUCHPOINTS, FatalError
from streams.settings import Settings
from streams.topics import (
    BOND_TOPICS,
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
from tests.loyalty.worlds import program

LEDGER = 1_000_000
PROGRAM = program(ledger=LEDGER)
WITH_BONDS = msgspec.structs.replace(PROGRAM, bonds=Bonds())


@pytest.fixture
def cluster() -> Cluster:
    """As `kizuna topics create` leaves it."""
    return Cluster("c1", dict.fromkeys(configs(-1), 6), {n: dict(c) for n, c in configs(-1).items()})


def test_topics_as_they_are_created_have_no_faults(cluster: Cluster) -> None:
    assert faults(cluster, Settings(), PROGRAM) == []


def test_the_table_of_topics_is_the_contracts() -> None:
    made = configs(77)
    assert set(made) == {*INPUTS, TIER_CHANGES, CUSTOMER_TIERS, DEAD_LETTERS, *BOND_TOPICS}
    for name in INPUTS:
        assert made[name]["message.timestamp.type"] == "LogAppendTime"
        assert made[name]["retention.ms"] == "77"
    assert made[TIER_CHANGES]["retention.ms"] == "77"
    assert all(made[name] == made[TIER_CHANGES] for name in BOND_TOPICS)
    assert made[CUSTOMER_TIERS] == {"cleanup.policy": "compact"}
    assert made[DEAD_LETTERS]["retention.ms"] == "-1"
    larger = int(made[DEAD_LETTERS]["max.message.bytes"]) - int(made[PURCHASES]["max.message.bytes"])
    assert larger == 64 * 1024


def test_missing_topics_are_named_with_what_to_do(cluster: Cluster) -> None:
    del cluster.partitions[PURCHASES], cluster.partitions[DEAD_LETTERS]
    [fault] = faults(cluster, Settings(topic_prefix="x."), PROGRAM)
    assert fault == "topics are missing: x.purchases, x.dead-letters (kizuna topics create)"


@pytest.mark.parametrize("name", COPARTITIONED)
def test_topics_that_differ_in_partitions_are_refused(cluster: Cluster, name: str) -> None:
    cluster.partitions[name] = 7
    [fault] = faults(cluster, Settings(), PROGRAM)
    assert fault.startswith("topics differ in partitions: ")
    assert f"loyalty.{name} 7" in fault


def test_a_program_without_bonds_needs_none_of_their_topics(cluster: Cluster) -> None:
    for name in BOND_TOPICS:
        del cluster.partitions[name], cluster.configs[name]
    assert faults(cluster, Settings(), PROGRAM) == []
    assert check(cluster, Settings(), PROGRAM) == 6
    [fault] = faults(cluster, Settings(), WITH_BONDS)
    names = ", ".join(f"loyalty.{name}" for name in BOND_TOPICS)
    assert fault == f"topics are missing: {names} (kizuna topics create)"


@pytest.mark.parametrize("name", BOND_TOPICS)
def test_the_topics_of_bonds_have_as_many_partitions_where_they_are_written(
    cluster: Cluster, name: str
) -> None:
    cluster.partitions[name] = 7
    assert faults(cluster, Settings(), PROGRAM) == []
    for asked in (WITH_BONDS, None):
        [fault] = faults(cluster, Settings(), asked)
        assert f"loyalty.{name} 7" in fault


def test_dead_letters_may_have_any_number_of_partitions(cluster: Cluster) -> None:
    cluster.partitions[DEAD_LETTERS] = 1
    assert faults(cluster, Settings(), PROGRAM) == []


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
    [fault] = faults(cluster, Settings(), PROGRAM)
    assert fault.startswith(f"topic loyalty.{name}: ")
    assert told in fault


def test_an_input_may_keep_just_the_ledger(cluster: Cluster) -> None:
    cluster.configs[PURCHASES]["retention.ms"] = str(LEDGER)
    assert faults(cluster, Settings(), PROGRAM) == []


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
