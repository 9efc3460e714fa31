"""The topics of the contract: their settings in one table, how they are made, what the worker insists on."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

from schemas.program import Program
from streams.protocols import COMMANDS, INPUTS, PURCHASES, TOUCHPOINTS, FatalError, Stop
from streams.settings import Settings

TIER_CHANGES = "tier-changes"
CUSTOMER_TIERS = "customer-tiers"
DEAD_LETTERS = "dead-letters"
SEGMENT_CHANGES = "segment-changes"
NURTURING_TRIGGERS = "nurturing-triggers"
ATTRIBUTIONS = "attributions"

#: What is told of bonds: written by programs that keep them, and asked for by nobody else.
BOND_TOPICS = (SEGMENT_CHANGES, NURTURING_TRIGGERS, ATTRIBUTIONS)

#: Partition p of each of these belongs to shard p; of the topics of bonds, too, where they are there.
COPARTITIONED = (*INPUTS, TIER_CHANGES, CUSTOMER_TIERS)

#: Kafka's default for `max.message.bytes`, and how much more the dead-letter topic takes.
INPUT_MAX_BYTES = 1_048_588
DEAD_LETTER_EXTRA_BYTES = 65_536
DEFAULT_PARTITIONS = 12


def configs(retention_ms: int) -> dict[str, dict[str, str]]:
    """The settings of every topic, by the contract's name; `retention_ms` -1 keeps for ever."""
    kept = {"cleanup.policy": "delete", "retention.ms": str(retention_ms), "retention.bytes": "-1"}
    read = kept | {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(INPUT_MAX_BYTES)}
    dead = kept | {
        "retention.ms": "-1",
        "max.message.bytes": str(INPUT_MAX_BYTES + DEAD_LETTER_EXTRA_BYTES),
    }
    return {
        PURCHASES: read,
        TOUCHPOINTS: read,
        COMMANDS: read,
        TIER_CHANGES: kept,
        CUSTOMER_TIERS: {"cleanup.policy": "compact"},
        DEAD_LETTERS: dead,
        **dict.fromkeys(BOND_TOPICS, kept),
    }


def copartitioned(program: Program) -> tuple[str, ...]:
    """The topics of which a program's shard p has partition p."""
    return COPARTITIONED if program.bonds is None else (*COPARTITIONED, *BOND_TOPICS)


def outputs(program: Program) -> tuple[str, ...]:
    """The topics that tell what a program decided: at a take-over each is read on from where the store knows it."""
    return (TIER_CHANGES,) if program.bonds is None else (TIER_CHANGES, *BOND_TOPICS)


@dataclass(slots=True)
class Cluster:
    """What the cluster says of itself and of our topics, by the contract's names."""

    id: str
    partitions: dict[str, int] = field(default_factory=dict)
    configs: dict[str, dict[str, str]] = field(default_factory=dict)
    #: See `Binding.inputs`.
    inputs: str = ""


#: How long is tried to reach a first broker, in milliseconds.
BOOTSTRAP_MS = 5_000


@contextmanager
def administration(settings: Settings) -> Iterator[KafkaAdminClient]:
    """An administration client. Raises FatalError where no broker answers."""
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=settings.broker_list(),
            client_id="kizuna-admin",
            bootstrap_timeout_ms=BOOTSTRAP_MS,
        )
    except (KafkaError, OSError, ValueError) as error:
        raise FatalError(
            f"no Kafka broker answers at {settings.brokers}: {said(error)}", Stop.KAFKA
        ) from error
    try:
        yield admin
    except KafkaError as error:
        raise FatalError(f"Kafka at {settings.brokers} refused: {said(error)}", Stop.KAFKA) from error
    finally:
        admin.close()


def said(error: BaseException) -> str:
    """An error of kafka-python in a line: what the broker said, without request and response around it."""
    text = str(error)
    if told := re.search(r"error_message=(?P<quote>['\"])(?P<text>.+?)(?P=quote), ", text):
        text = told["text"]
    text = " ".join(text.split(" Request '")[0].split())
    name = type(error).__name__
    if text.endswith(f"{name}: None"):
        return f"{name}: {getattr(error, 'description', None) or 'no more is said'}"
    return text if name in text else f"{name}: {text}"


def describe(admin: KafkaAdminClient, settings: Settings) -> Cluster:
    """The cluster's id, and partitions and settings of those of our topics that exist."""
    cluster = Cluster(str(admin.describe_cluster()["cluster_id"]))
    names = {settings.topic(name): name for name in configs(-1)}
    present = set(admin.list_topics()) & set(names)
    if not present:
        return cluster
    for topic in admin.describe_topics(sorted(present)):
        cluster.partitions[names[topic["name"]]] = len(topic["partitions"])
    cluster.inputs, _ = describe_inputs(admin, settings)
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(present)]
    described: Mapping[str, Any] = admin.describe_configs(wanted, config_filter="all")
    for name, held in described["topic"].items():
        cluster.configs[names[name]] = {key: str(entry["value"]) for key, entry in held.items()}
    return cluster


def describe_inputs(admin: KafkaAdminClient, settings: Settings) -> tuple[str, int]:
    """See `streams.protocols.Log.inputs`.

    Raises FatalError where no broker answers.
    """
    try:
        found = admin.describe_topics([settings.topic(name) for name in INPUTS])
    except (KafkaError, OSError) as error:
        raise FatalError(f"cannot ask for the ids of the topics: {said(error)}", Stop.KAFKA) from error
    there = {topic["name"]: topic for topic in found if not topic["error_code"]}
    ids = {name: str(topic["topic_id"]) for name, topic in there.items()}
    return (
        " ".join(ids.get(settings.topic(name), "") for name in INPUTS),
        max((len(topic["partitions"]) for topic in there.values()), default=0),
    )


def topics_remade(prefix: str, before: str, now: str) -> FatalError:
    """The error of input topics that are not those of before; both as in `Binding.inputs`."""
    for topic, old, new in zip(INPUTS, before.split(" "), now.split(" "), strict=True):
        if old != new:
            became = f"has the id {new}" if new else "is gone"
            return FatalError(
                f"{prefix}{topic} {became}, and the store has read the one with the id {old}: it was deleted and made "
                "anew; restore it, or make the state anew from what is left with `kizuna rebuild`",
                Stop.TOPIC_REMADE,
            )
    raise ValueError(f"the same topics: {now}")


def members(admin: KafkaAdminClient, group: str) -> int:
    """How many members a consumer group has. Raises FatalError where no broker answers."""
    try:
        described = admin.describe_groups([group])
    except (KafkaError, OSError) as error:
        raise FatalError(f"cannot ask for the members of group {group}: {said(error)}", Stop.KAFKA) from error
    return sum(len(found["members"]) for found in described.values())


def create(
    admin: KafkaAdminClient, settings: Settings, partitions: int, replication: int, retention_ms: int
) -> list[str]:
    """Make the topics that are missing; returns the contract's names of those that were made."""
    present = describe(admin, settings)
    missing = {
        settings.topic(name): {
            "num_partitions": partitions,
            "replication_factor": replication,
            "configs": config,
        }
        for name, config in configs(retention_ms).items()
        if name not in present.partitions
    }
    if missing:
        admin.create_topics(missing, wait_for_metadata=True)
    return [name[len(settings.topic_prefix) :] for name in missing]


def faults(cluster: Cluster, settings: Settings, program: Program | None) -> list[str]:
    """What the worker would refuse, a line each; `program` None where none is known: it may keep bonds."""
    ledger_ms = None if program is None else program.ledger
    together = (*COPARTITIONED, *BOND_TOPICS) if program is None else copartitioned(program)
    missing = [settings.topic(name) for name in (*together, DEAD_LETTERS) if name not in cluster.partitions]
    if missing:
        return [f"topics are missing: {', '.join(missing)} (kizuna topics create)"]
    found: list[str] = []
    counts = {name: cluster.partitions[name] for name in together}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{settings.topic(name)} {count}" for name, count in counts.items())
        found.append(f"topics differ in partitions: {told}")
    for name in INPUTS:
        found += (
            f"topic {settings.topic(name)}: {fault}"
            for fault in _input_faults(cluster.configs[name], ledger_ms)
        )
    found += (f"topic {settings.topic(name)}: {fault}" for name, fault in _output_faults(cluster))
    return found


def _output_faults(cluster: Cluster) -> Iterator[tuple[str, str]]:
    if "compact" not in cluster.configs[CUSTOMER_TIERS]["cleanup.policy"]:
        yield CUSTOMER_TIERS, "cleanup.policy must be compact"
    largest = (
        max(int(cluster.configs[name]["max.message.bytes"]) for name in INPUTS) + DEAD_LETTER_EXTRA_BYTES
    )
    taken = int(cluster.configs[DEAD_LETTERS]["max.message.bytes"])
    if taken < largest:
        yield (
            DEAD_LETTERS,
            f"max.message.bytes must be at least {largest} (the inputs' and 64 KiB), it is {taken}",
        )


def _input_faults(config: Mapping[str, str], ledger_ms: int | None) -> Iterator[str]:
    if config["message.timestamp.type"] != "LogAppendTime":
        yield f"message.timestamp.type must be LogAppendTime, it is {config['message.timestamp.type']}"
    if config["cleanup.policy"] != "delete":
        yield f"cleanup.policy must be delete, it is {config['cleanup.policy']}"
    if config["retention.bytes"] != "-1":
        yield f"retention.bytes must be -1, {config['retention.bytes']} bytes may be less than the ledger"
    retention = int(config["retention.ms"])
    if ledger_ms is not None and 0 <= retention < ledger_ms:
        yield f"keeps {retention} ms (retention.ms), the program's ledger needs {ledger_ms} ms"


def check(cluster: Cluster, settings: Settings, program: Program) -> int:
    """The number of partitions. Raises FatalError, one line, where the worker must not start on them."""
    found = faults(cluster, settings, program)
    if found:
        raise FatalError("; ".join(found), Stop.TOPICS)
    return cluster.partitions[PURCHASES]
