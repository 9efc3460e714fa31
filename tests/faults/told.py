"""What was told of bonds, as the verifier reads it: a customer's records of three topics, by their one sequence."""

from dataclasses import dataclass, field
from typing import Any

from streams.protocols import INPUTS
from tests.faults.marketing import ms_of
from tests.space import Read

SEGMENTS, TRIGGERS, ATTRIBUTIONS = "segment-changes", "nurturing-triggers", "attributions"
TYPES = {
    SEGMENTS: b"loyalty.segment.changed.v1",
    TRIGGERS: b"loyalty.nurturing.triggered.v1",
    ATTRIBUTIONS: b"loyalty.attribution.changed.v1",
}
#: Up to where each input had been read when something was decided.
Positions = dict[str, int]


@dataclass(slots=True)
class Told:
    """A published record and its place in the sequence of its customer's records."""

    topic: str
    seq: int
    body: dict[str, Any]
    record: Read

    @property
    def at(self) -> int:
        return ms_of(self.body["effective_at"])


@dataclass(slots=True)
class Of:
    """What was told of one customer, by its sequence."""

    customer_id: str
    all: list[Told] = field(default_factory=list)

    def only(self, topic: str) -> list[Told]:
        return [told for told in self.all if told.topic == topic]

    def steps(self) -> list[Told]:
        """Those of scenarios; a reserved place is none."""
        return [told for told in self.only(TRIGGERS) if told.body["scenario"] is not None]


def positions_of(record: Read) -> Positions:
    """Up to where each input had been read; nothing where the record does not say it."""
    raw = (record.header.get("loyalty-watermarks") or b"").decode()
    positions = dict(part.split("=") for part in raw.split(";")) if raw else {}
    return {topic: int(positions[topic]) for topic in INPUTS if topic in positions}
