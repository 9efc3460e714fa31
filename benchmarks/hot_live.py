"""A live flow beside a hot customer, who buys in every other stretch: what its neighbours notice of it."""

import time
from pathlib import Path
from typing import Any

from redis import Redis
from rich.console import Console

from benchmarks.group import Group
from benchmarks.holdings import forget
from benchmarks.hot_catching_up import HOT, orders_in_window
from benchmarks.live import LiveLoad, Sender, at_random, customer, load
from benchmarks.orders import DAY_MS
from benchmarks.phases import Probe, percentile
from benchmarks.results import Numbers
from benchmarks.subscribing import Subscriber, measured
from benchmarks.worker import BenchmarkError, create_all, settings_on
from cli.local_stack import LocalStack
from schemas.murmur2 import home
from schemas.times import format_ms
from streams.keys import ShardKeys
from streams.protocols import PURCHASES
from streams.settings import ClockKind, Settings

#: Neighbours, who have bought once; seconds of flow before anything is measured; without progress after which something
#: is wrong; by which the load may be behind its rate; between two looks.
_CUSTOMERS = 20_000
_WARM_UP = 20.0
_STALLED = 120.0
_BEHIND = 0.5
_LOOK = 0.1


class HotLoad(LiveLoad):
    """The live load; where `buys`, the hot customer buys, too, once for so many events of others."""

    def __init__(self, settings: Settings, partitions: int, rate: int, share: float) -> None:
        super().__init__(settings, partitions, rate, at_random(range(_CUSTOMERS)))
        self._share = share
        self._owed = 0.0
        self.buys = False
        #: How many events of the hot customer were sent.
        self.hot = 0

    def _send(self, customer_id: str, amount: str, order: str, at: str) -> None:
        super()._send(customer_id, amount, order, at)
        if self.buys:
            self._owed += self._share
            while self._owed >= 1:
                self._owed -= 1
                self._sender.send(HOT, f"h{self.hot}", "19.99", at)
                self.hot += 1


class Live:
    """One worker, one flow."""

    def __init__(
        self,
        stack: LocalStack,
        program: Path,
        partitions: int,
        orders: int,
        share: float,
        rate: int,
        console: Console,
    ) -> None:
        self._partitions, self._orders, self._console = partitions, orders, console
        mark = f"hot-live-{partitions}"
        self._settings = settings_on(stack, str(program)).but(
            clock=ClockKind.WALL, topic_prefix=f"{mark}.", group=mark, redis_prefix=mark
        )
        self._redis: Any = Redis.from_url(stack.redis_url)
        self._group = Group(stack, stack.redis, self._settings, self._partitions, 1, mark)
        self._load = HotLoad(self._settings, self._partitions, rate, share)
        self._subscriber = Subscriber(self._settings, self._partitions, "member")

    def run(self, seconds: int, rounds: int) -> Numbers:
        """So many stretches without and with the hot customer, in turn, of so many seconds.

        Raises BenchmarkError where the load could not keep its rate, or a change does not come.
        """
        forget(self._redis)
        create_all(self._settings, self._partitions)
        self._subscriber.start()
        try:
            self._group.start()
            self._fill()
            self._load.start()
            self._rest(_WARM_UP)
            stretches = [self._round(seconds, number) for number in range(1, rounds + 1)]
            self._load.buys = False
            self._load.end()
            self._load.check()
            self._wait_read(self._orders + _CUSTOMERS + self._load.count + self._load.hot)
            self._wait_probes()
        finally:
            if self._load.is_alive():
                self._load.end()
            self._subscriber.end()
            self._group.stop()
        self._subscriber.check()
        self._check()
        return self._told(stretches)

    def _fill(self) -> None:
        self._console.print(f"loading {_CUSTOMERS:,} neighbours, and {self._orders:,} orders of one")
        sender = Sender(self._settings, self._partitions)
        now = int(time.time() * 1000)
        # Within the last year, so that nothing leaves the window meanwhile.
        for order in range(self._orders):
            at = now - 360 * DAY_MS + (359 * DAY_MS * order) // self._orders
            sender.send(HOT, f"y{order}", "19.99", format_ms(at))
            if not order % 1_000:
                sender.poll()
        sender.finish()
        neighbours = ((customer(number), "10.00") for number in range(_CUSTOMERS))
        load(self._settings, self._partitions, neighbours, now)
        self._wait_read(self._orders + _CUSTOMERS)
        held = orders_in_window(self._redis, self._settings, self._partitions)
        if held != self._orders:
            raise BenchmarkError(f"the hot customer has {held:,} orders in the window, not {self._orders:,}")

    def _round(self, seconds: int, number: int) -> dict[str, Numbers]:
        stretches: dict[str, Numbers] = {}
        for kind in ("without", "with") if number % 2 else ("with", "without"):
            self._console.print(f"round {number}  live, {kind} the hot customer's events, {seconds} s")
            self._load.buys = kind == "with"
            start, cpu, hot = time.monotonic(), self._group.cpu(), self._load.hot
            self._rest(seconds)
            end = time.monotonic()
            spent = {name: value - cpu[name] for name, value in self._group.cpu().items()}
            stretches[kind] = {
                "start": start,
                "end": end,
                "hot_events": self._load.hot - hot,
                "cores": {name: value / (end - start) for name, value in spent.items()},
            }
        return stretches

    def _told(self, rounds: list[dict[str, Numbers]]) -> Numbers:
        hot = home(HOT.encode(), self._partitions)
        probes: dict[str, list[Probe]] = {"neighbours": [], "others": []}
        for number, probe in enumerate(measured(self._load, self._subscriber)):
            near = home(f"probe-{number}".encode(), self._partitions) == hot
            probes["neighbours" if near else "others"].append(probe)
        pooled: Numbers = {}
        for group, every in probes.items():
            for kind in ("without", "with"):
                stretches = [one[kind] for one in rounds]
                found = [_within(every, stretch) for stretch in stretches]
                for stretch, delays in zip(stretches, found, strict=True):
                    stretch[group] = in_ms(delays)
                pooled.setdefault(group, {})[kind] = in_ms([delay for delays in found for delay in delays])
        return {
            "customers": _CUSTOMERS,
            "load_behind_ms": self._load.behind * 1000,
            "rounds": rounds,
            "pooled": pooled,
        }

    def _check(self) -> None:
        if self._load.behind > _BEHIND:
            raise BenchmarkError(f"the load was {self._load.behind:.1f} s behind its rate")
        if self._subscriber.torn:
            raise BenchmarkError(f"changes are missing: {self._subscriber.torn[:5]}")
        held = orders_in_window(self._redis, self._settings, self._partitions)
        if held != self._orders + self._load.hot:
            raise BenchmarkError(
                f"the hot customer has {held:,} orders, not {self._orders + self._load.hot:,}"
            )

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._group.check()
            self._load.check()
            time.sleep(min(_LOOK, left))

    def _wait_read(self, events: int) -> None:
        """Until so many purchases are committed and all that came of them is published."""
        shards = [ShardKeys(self._settings.redis_prefix, p) for p in range(self._partitions)]
        give_up = time.monotonic() + _STALLED
        while True:
            self._group.check()
            pipe = self._redis.pipeline(transaction=False)
            for keys in shards:
                pipe.hget(keys.shard, f"offset:{PURCHASES}")
                pipe.llen(keys.outbox)
            found: list[Any] = pipe.execute()
            read = sum(int(at or 0) for at in found[::2])
            if read == events and not any(found[1::2]):
                return
            if time.monotonic() > give_up:
                raise BenchmarkError(f"{read:,} of {events:,} purchases were read{self._group.last_words()}")
            time.sleep(_LOOK)

    def _wait_probes(self) -> None:
        give_up = time.monotonic() + _STALLED
        while len(self._subscriber.probes) < len(self._load.probes):
            self._subscriber.check()
            if time.monotonic() > give_up:
                raise BenchmarkError(
                    f"the changes of {len(self._subscriber.probes):,} of {len(self._load.probes):,} probes came"
                )
            time.sleep(_LOOK)


def _within(probes: list[Probe], stretch: Numbers) -> list[float]:
    """Seconds that those took which were sent in a stretch."""
    return [probe.read - probe.sent for probe in probes if stretch["start"] <= probe.sent < stretch["end"]]


def in_ms(delays: list[float]) -> Numbers:
    """How many, and milliseconds by rank."""
    told: Numbers = {"probes": len(delays)}
    if delays:
        told |= {
            "p50_ms": percentile(delays, 0.5) * 1000,
            "p99_ms": percentile(delays, 0.99) * 1000,
            "max_ms": max(delays) * 1000,
        }
    return told
