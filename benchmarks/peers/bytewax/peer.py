"""(e) Bytewax as its documentation has it: its own Kafka source and sink, decoding by batch, `stateful_batch` by
customer. No recovery store, so a restart begins anew; the collector's threshold is raised, worth a third here."""

import gc
from collections.abc import Iterable

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.testing import cluster_main

from benchmarks.peers.work import Change, Decoder, Event, Place, Work, tell


class Customer(StatefulBatchLogic[Event, Change, bytes | None]):
    """One customer's state; what a batch brings is worked on at once."""

    def __init__(self, work: Work, state: bytes | None) -> None:
        self._apply = work.apply
        self._state = state

    def on_batch(self, values: list[Event]) -> tuple[Iterable[Change], bool]:
        """The changes of a customer's events of one batch; who is known stays known."""
        state, changes = self._state, []
        for event in values:
            state, change = self._apply(state, event)
            if change is not None:
                changes.append(change)
        self._state = state
        return changes, StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes | None:
        """The state is bytes already."""
        return self._state


def flow(place: Place) -> Dataflow:
    """Input, decoding, customers, output."""
    decoder, work = Decoder(place.program), Work(place.program)
    started = False

    def keyed(batch: list[KafkaSourceMessage[bytes | None, bytes | None]]) -> list[tuple[str, Event]]:
        nonlocal started
        if batch and not started:
            tell("started")
            started = True
        return [
            (event.customer_id, event) for event in decoder.events(message.value or b"" for message in batch)
        ]

    def records(changes: list[tuple[str, Change]]) -> list[KafkaSinkMessage[bytes | None, bytes | None]]:
        return [KafkaSinkMessage(customer.encode(), work.record(change)) for customer, change in changes]

    made = Dataflow("peer")
    # Statistics of librdkafka would be read every second for each partition.
    source = KafkaSource(
        [place.brokers], [place.input], add_config={"statistics.interval.ms": "0"}, batch_size=4_000
    )
    events = op.flat_map_batch("decode", op.input("purchases", made, source), keyed)
    changes = op.stateful_batch("customers", events, lambda state: Customer(work, state))
    sink = KafkaSink(
        [place.brokers], place.output, add_config={"partitioner": "murmur2_random", "linger.ms": "0"}
    )
    op.output("changes", op.flat_map_batch("records", changes, records), sink)
    return made


if __name__ == "__main__":
    here = flow(Place.read())
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    cluster_main(here, [], 0)
