"""(a) The least that any reader in Python does: fetch with aiokafka and decode, nothing else."""

import msgspec
import uvloop

from benchmarks.peers.consuming import batches
from benchmarks.peers.work import Place, Purchase, cents, tell


async def main() -> None:
    """Read everything once, tell, and wait to be stopped."""
    place = Place.read()
    decode = msgspec.json.Decoder(Purchase).decode
    events, amounts = 0, dict[bytes, int]()
    async for _, records in batches(place):
        if not events:
            tell("started")
        for record in records:
            raw = bytes(decode(record.value).amount)
            amounts[raw] = amounts.get(raw, 0) + 1
        events += len(records)
        if events == place.events:
            # Counted, and summed up here, so that the harness can see that all was decoded.
            tell("done", events=events, amount=sum(cents(raw) * times for raw, times in amounts.items()))


if __name__ == "__main__":
    uvloop.run(main())
