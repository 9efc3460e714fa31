"""The first step: each record of a batch becomes an event, a dead letter, or a record to send on."""

from collections.abc import Callable, Sequence

from schemas.dead_letter import dead_letter_headers, fit
from schemas.decoding import EventDecoder
from schemas.events import InputEvent
from schemas.placing import read_all
from schemas.program import Program
from schemas.rejection import Reason, RejectedError
from schemas.reroute import is_rerouted, rerouted_headers
from streams.outbox import Entry
from streams.protocols import COMMANDS, PURCHASES, TOUCHPOINTS, Batch, Record
from streams.settings import Settings
from streams.topics import DEAD_LETTER_EXTRA_BYTES, DEAD_LETTERS, INPUT_MAX_BYTES

#: Events in the order in which they were read, each beside its record.
Events = list[tuple[Record, InputEvent]]


class Intake:
    """Decodes, validates and places; knows nothing of customers."""

    def __init__(self, settings: Settings, program: Program, partitions: int) -> None:
        decoder = EventDecoder(program)
        self._settings = settings
        self._decode: dict[str, Callable[[Record], InputEvent]] = {
            PURCHASES: decoder.purchase,
            TOUCHPOINTS: decoder.touchpoint,
            COMMANDS: decoder.command,
        }
        self._partitions = partitions

    def decode(self, topic: str, record: Record) -> InputEvent:
        """A record of an input, decoded and validated. Raises RejectedError."""
        return self._decode[topic](record)

    def read(self, batch: Batch) -> tuple[Events, list[Entry]]:
        """The batch's events, and what goes out at once. What is misplaced is not among the events."""
        topic, partition = batch.topic, batch.partition
        events, others = read_all(self._decode[topic], batch.records, partition, self._partitions)
        out: list[Entry] = []
        for record, why in others:
            if isinstance(why, RejectedError):
                rejected = why
            elif is_rerouted(record.headers):
                detail = f"key: expected the customer_id, in partition {why[1]}"
                rejected = RejectedError(Reason.MISROUTED, detail)
            else:
                key, place = why
                out.append(Entry(topic, place, key, record.value, rerouted_headers(record.headers)))
                continue
            out.append(self.dead_letter(topic, partition, record, rejected.reason, rejected.detail))
        return events, out

    def dead_letter(self, topic: str, partition: int, record: Record, reason: Reason, detail: str) -> Entry:
        """The record as it was, and why it could not be used."""
        headers: Sequence[tuple[str, bytes | None]] = dead_letter_headers(
            record.headers,
            reason,
            detail,
            self._settings.topic(topic),
            partition,
            record.offset,
            record.timestamp,
        )
        key, value, headers = fit(
            record.key, record.value, headers, INPUT_MAX_BYTES + DEAD_LETTER_EXTRA_BYTES
        )
        return Entry(DEAD_LETTERS, None, key, value, headers, reason)
