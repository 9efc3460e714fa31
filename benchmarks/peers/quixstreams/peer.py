"""(d) Quix Streams as its documentation has it: a dataframe with state by message key, which holds packed bytes,
RocksDB beneath it and a changelog topic beside it; its defaults, but for the collector's threshold and its log."""

import gc

from quixstreams import Application, State

from benchmarks.peers.work import Decoder, Place, Work, tell, tell_invalid

_STATE = "customer"


def main() -> None:
    """Run until it is stopped."""
    place = Place.read()
    decode, work = Decoder(place.program).event, Work(place.program)
    app = Application(
        broker_address=place.brokers,
        consumer_group=place.group,
        auto_offset_reset="earliest",
        state_dir=place.state,
        loglevel="WARNING",
        producer_extra_config={"enable.idempotence": True, "partitioner": "murmur2_random"},
    )
    source = app.topic(place.input, key_deserializer="bytes", value_deserializer="bytes")
    target = app.topic(place.output, key_serializer="bytes", value_serializer="bytes")
    started = False

    def on_purchase(value: bytes, state: State) -> bytes | None:
        nonlocal started
        if not started:
            tell("started")
            started = True
        try:
            event = decode(value)
        except ValueError as error:
            tell_invalid(value, error)
            return None
        before = state.get_bytes(_STATE)
        after, change = work.apply(before, event)
        if after is not before:
            state.set_bytes(_STATE, after)
        return None if change is None else work.record(change)

    changes = app.dataframe(source).apply(on_purchase, stateful=True)
    changes.filter(lambda record: record is not None).to_topic(target)
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    app.run()


if __name__ == "__main__":
    main()
