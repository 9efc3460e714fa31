"""How far a peer is, seen from outside: what a read-committed reader of its output may read, and CPU from /proc."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from benchmarks.worker import BenchmarkError
from cli.local_stack import LocalStack

#: Seconds within which the broker must answer, and looks from one search for a process's children to the next.
_ASKED_WITHIN = 10.0
_FIND_CHILDREN = 40


class Look(NamedTuple):
    """At one instant (seconds of the monotonic clock): the last stable offset of each output partition, and CPU
    seconds so far by process: peer, broker, redis, and all of the machine."""

    at: float
    stable: tuple[int, ...]
    cpu: dict[str, float]


class Record(NamedTuple):
    """One record of an output."""

    partition: int
    offset: int
    value: bytes


class Watch:
    """Looks at one output topic and at one peer's processes, beside those of the stack."""

    def __init__(self, stack: LocalStack, topic: str, partitions: int) -> None:
        self._stack = stack
        self._admin = AdminClient({"bootstrap.servers": stack.brokers})
        self._asked = {
            TopicPartition(topic, partition): OffsetSpec.latest() for partition in range(partitions)
        }
        self._topic, self._partitions = topic, partitions
        self._trees: dict[int | None, list[psutil.Process]] = {}
        self._looks = 0

    def look(self, pid: int | None) -> Look:
        """Now, with the processes of `pid`. Raises BenchmarkError where one has ended."""
        # Finding children means reading all of /proc, which would cost a twentieth of a core.
        if self._looks % _FIND_CHILDREN == 0:
            self._trees.clear()
        self._looks += 1
        # CPU first: what the broker does for this look is not the peer's.
        cpu = {
            "peer": self._tree(pid),
            "broker": self._tree(self._stack.kafka.pid),
            "redis": self._tree(self._stack.redis.pid),
            "machine": _busy(),
        }
        stable = self._stable()
        return Look(time.monotonic(), stable, cpu)

    def _stable(self) -> tuple[int, ...]:
        give_up = time.monotonic() + _ASKED_WITHIN
        while True:
            try:
                told = self._admin.list_offsets(self._asked, isolation_level=IsolationLevel.READ_COMMITTED)
                found = {tp.partition: future.result().offset for tp, future in told.items()}
            except KafkaException as error:
                # A topic that was just made has no leader yet.
                if time.monotonic() > give_up:
                    raise BenchmarkError(
                        f"Kafka does not tell the offsets of {self._topic}: {error}"
                    ) from error
                time.sleep(0.02)
            else:
                return tuple(found[partition] for partition in range(self._partitions))

    def _tree(self, pid: int | None) -> float:
        try:
            if pid not in self._trees:
                self._trees[pid] = _processes(pid)
            times = [process.cpu_times() for process in self._trees[pid] if process.is_running()]
        except psutil.NoSuchProcess as error:
            raise BenchmarkError("a process has ended") from error
        # A child that is gone, such as a compiler's, counts with its parent.
        return sum(t.user + t.system for t in times) + times[0].children_user + times[0].children_system

    def records(self, start: tuple[int, ...], end: tuple[int, ...]) -> Iterator[Record]:
        """What a read-committed reader finds from `start` on and before `end`, in order by partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._stack.brokers,
                "group.id": "benchmark",  # Never joined: partitions are assigned.
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        try:
            left = {partition for partition in range(self._partitions) if start[partition] < end[partition]}
            consumer.assign(
                [TopicPartition(self._topic, partition, start[partition]) for partition in sorted(left)]
            )
            while left:
                for message in consumer.consume(10_000, timeout=1.0):
                    partition = message.partition()
                    if message.error() is not None:
                        # The end of the partition: behind `end` there may be nothing but a transaction's marker.
                        left.discard(partition)
                    elif message.offset() < end[partition]:
                        yield Record(partition, message.offset(), message.value())
        finally:
            consumer.close()


def peak_memory(pid: int | None) -> int:
    """Bytes that a process and its children held at most at a time, each by itself."""
    total = 0
    for process in _processes(pid):
        with Path(f"/proc/{process.pid}/status").open() as status:
            total += next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")), 0)
    return total


def _processes(pid: int | None) -> list[psutil.Process]:
    if pid is None:
        raise BenchmarkError("a process has ended")
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _busy() -> float:
    """CPU seconds that the machine has worked so far."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
