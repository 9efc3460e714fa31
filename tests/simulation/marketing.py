"""Who sends what the triggers ask for, so that it comes back as touchpoints."""

import json
from typing import TYPE_CHECKING

from schemas.bond_records import TriggerEvent, decode
from schemas.events import TouchpointMade
from schemas.murmur2 import home
from schemas.times import format_ms, parse_rfc3339
from streams.protocols import TOUCHPOINTS
from streams.topics import NURTURING_TRIGGERS
from tests.simulation.inputs import Said
from tests.simulation.kafka import LogRecord

if TYPE_CHECKING:
    from tests.simulation.world import World


class Marketing:
    """Sends mostly once, now and then twice, late, or never."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._seen: dict[int, int] = {}
        self._on_its_way = 0
        self._made = 0

    @property
    def is_sending(self) -> bool:
        return self._on_its_way > 0

    def look(self) -> None:
        """See what is published, and send it."""
        world = self._world
        if world.program.bonds is None or world.is_calm:
            return
        for partition in range(world.partitions):
            log = world.kafka.log(NURTURING_TRIGGERS, partition)
            at = self._seen.get(partition, log.start)
            end, self._seen[partition] = log.stable, log.stable
            for record in log.between(at, end):
                self._send(record)

    def _send(self, record: LogRecord) -> None:
        rng = self._world.rng
        trigger = decode(TriggerEvent, record.value or b"")
        assert isinstance(trigger, TriggerEvent)
        if trigger.status != "sent":
            return
        for _ in range(rng.choice((0, 1, 1, 1, 2))):
            self._on_its_way += 1
            self._world.loop.call_later(rng.choice((0.01, 0.1, 0.5, 2.0)), self._sent, trigger)

    def _sent(self, trigger: TriggerEvent) -> None:
        world, rng = self._world, self._world.rng
        self._on_its_way -= 1
        self._made += 1
        at = parse_rfc3339(trigger.effective_at) + rng.choice((0, 1, 500))
        at = min(at, world.wall())
        said = {
            "customer_id": trigger.customer_id,
            "event_id": f"m{self._made}",
            "source": "marketing",
            "channel": trigger.channel,
            "direction": "outbound",
            "campaign_id": rng.choice(("spring", "card")),
            "trigger_id": trigger.event_id,
        }
        event = TouchpointMade(occurred_at=at, **said)
        value = json.dumps(said | {"type": "touchpoint", "occurred_at": format_ms(at)}).encode()
        world.scenario.truth[TOUCHPOINTS, value, ()] = Said(event, None)
        key = trigger.customer_id.encode()
        world.count("triggers that came back")
        world.kafka.append(TOUCHPOINTS, home(key, world.partitions), key, value, ())
