"""Which server holds which shard: the one Redis, or the primaries of a Redis Cluster.

All keys of a shard have one slot, so each shard has one server at a time, and whoever works on it gets that server's
own, plain client. Nothing is sent on or sent again here: where a shard has moved, the server refuses, and whoever
takes the shard over again asks anew where it is. Decision 17 has the reasons.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.cluster import parse_cluster_slots
from redis.crc import key_slot
from redis.exceptions import ClusterError, NoScriptError, RedisError

from streams.closed_connections import is_closed
from streams.protocols import FatalError, Stop, UnavailableError
from streams.settings import each_host, without_password

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Bytes of a command that are left to the transport's buffer, which takes as many before it asks for a pause.
_WRITTEN_AT_ONCE = 64 * 1024
#: Keys that one SCAN looks at.
_SCANNED = 5_000
#: Seconds within which a server must say where the shards are, else another one is asked.
_TOLD_WITHIN = 5.0

#: First and last slot of a range, and the address of its primary.
Ranges = list[tuple[int, int, str]]


def connect(url: str) -> "RedisNodes":
    """Clients that never send a command twice by themselves. They time out after 30 s.

    Raises FatalError where the URL is none.
    """
    return RedisNodes(url)


def _client(url: str) -> "Redis":
    try:
        redis = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            socket_timeout=30,
            socket_connect_timeout=5,
            protocol=2,
        )
    except ValueError as error:
        raise FatalError(f"no Redis can be at {without_password(url)}: {error}", Stop.REDIS) from error
    pool = redis.connection_pool
    pool.connection_class = _packing(cast(Any, pool.connection_class))
    return redis


@cache
def _packing(kind: Any) -> type[AbstractConnection]:
    """The same kind of connection, by TCP, TLS or a socket, whose commands are written by hiredis. A commit has some
    ten thousand arguments, and redis-py's own loop over them cost a tenth of a worker's time."""

    class Packing(kind):  # type: ignore[misc]
        def pack_command(self, *args: Any) -> list[bytes]:
            # As redis-py: a command's name may be of two words.
            first, *others = args
            return [hiredis.pack_command((*first.split(), *others))]

        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            """As redis-py; what fits into the buffer is not waited for in a task of its own. Live, that was a quarter
            of what a script costs. An answer is waited for in any case, and for no longer than before."""
            if check_health or not self.is_connected or sum(map(len, command)) > _WRITTEN_AT_ONCE:
                await super().send_packed_command(command, check_health)
                return
            try:
                self._writer.writelines(command)
            except BaseException:
                await self.disconnect(nowait=True)
                raise

    return Packing


class Script(NamedTuple):
    """A script, and the name by which a server knows it."""

    text: str
    sha: str


def script_of(text: str) -> Script:
    """A script, for `RedisNodes.run`."""
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


async def _run(redis: "Redis", script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
    """As redis-py's `evalsha`, with its own connections, and without the layers above them that retry, count and time:
    live, a worker runs some hundred scripts a second, and these layers took more than half of their time."""
    pool: Any = redis.connection_pool
    connection = await pool.get_connection()
    try:
        # Either closes the connection where it fails, or where nobody waits for it any more.
        await connection.send_command("EVALSHA", script.sha, len(keys), *keys, *args, check_health=False)
        return await connection.read_response()
    finally:
        await pool.release(connection)


class RedisNodes:
    """The servers behind one URL. Whether they are a cluster is asked of them, when they are first needed.

    Methods raise what redis-py raises, for `streams.redis_store.answers` to tell.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._seeds = [_client(one) for one in each_host(url)]
        #: The clients of the primaries of a cluster, by address.
        self._primaries: dict[str, Redis] = {}
        self._ranges: Ranges = []
        self._by_shard: dict[int, Redis] = {}
        self._is_cluster: bool | None = None
        #: Whether the servers are to be asked anew where the shards are.
        self._is_due = True
        self._asking = asyncio.Lock()

    async def of(self, partition: int) -> "Redis":
        """The client of the server that holds a shard, as far as is known."""
        found = self._by_shard.get(partition)
        return await self._find(partition) if found is None else found

    async def all(self) -> "Sequence[Redis]":
        """A client for each server that holds shards."""
        await self._know()
        return list(self._primaries.values()) if self._is_cluster else self._seeds

    def look_again(self) -> None:
        """A server did not do what it was asked: shards may be elsewhere now."""
        if self._is_cluster:
            self._is_due = True
            self._by_shard = {}

    async def by_server(self, parts: Iterable[tuple[int, T]]) -> "list[tuple[Redis, list[tuple[int, T]]]]":
        """What belongs to shards, put together by the server that holds them."""
        servers: dict[int, tuple[Redis, list[tuple[int, T]]]] = {}
        for partition, one in parts:
            redis = await self.of(partition)
            servers.setdefault(id(redis), (redis, []))[1].append((partition, one))
        return list(servers.values())

    async def run(self, script: "Script", partition: int, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script where a shard is. A server that does not know it yet is told it."""
        redis = await self.of(partition)
        try:
            return await _run(redis, script, keys, args)
        except NoScriptError:
            await cast(Any, redis).script_load(script.text)
            return await _run(redis, script, keys, args)

    async def now(self) -> int:
        """The servers' clock, epoch milliseconds: of several the earliest, so that in no shard anything falls due
        before its own server says so."""
        times = await asyncio.gather(*(redis.time() for redis in await self.all()))
        return min(int(seconds) * 1000 + int(micros) // 1000 for seconds, micros in times)

    async def memory(self) -> list[dict[str, Any]]:
        """`INFO memory` of each server that holds shards."""
        return [await redis.info("memory") for redis in await self.all()]

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """Every key of this pattern, in no order, now and then one twice.

        Raises UnavailableError where shards were on their way from one server to another meanwhile: some of their
        keys may have been seen on neither.
        """
        await self._know()
        before = await self._settled()
        for redis in await self.all():
            async for key in redis.scan_iter(match=pattern, count=_SCANNED):
                yield key
        if await self._settled() != before:
            raise UnavailableError("shards have moved within the Redis Cluster while it was read: try again")

    async def aclose(self) -> None:
        """Close the connections."""
        for redis in (*self._seeds, *self._primaries.values()):
            await redis.aclose()

    # -- where the shards are --------------------------------------------------------------------------------------

    async def _find(self, partition: int) -> "Redis":
        await self._know()
        if not self._is_cluster:
            redis = self._seeds[0]
        else:
            slot = key_slot(b"%d" % partition)  # what stands between the braces of the keys
            for first, last, address in self._ranges:
                if first <= slot <= last:
                    redis = self._primaries[address]
                    break
            else:
                self._is_due = True
                raise ClusterError(f"no server of the Redis Cluster has slot {slot} of shard {partition}")
        self._by_shard[partition] = redis
        return redis

    async def _know(self) -> None:
        async with self._asking:
            if self._is_due:
                # First: what goes wrong while it is asked is asked about once more.
                self._is_due = False
                try:
                    await self._ask()
                except BaseException:
                    self._is_due = True
                    raise

    async def _ask(self) -> None:
        """Ask one of the servers, any that answers."""
        # The addresses that we were given may be gone by now. By chance: one that is cut off from the others, or
        # answers late, must not be asked first each time.
        known = random.sample(
            [*self._primaries.values(), *self._seeds], len(self._primaries) + len(self._seeds)
        )
        failed: Exception | None = None
        for redis in known:
            try:
                async with asyncio.timeout(_TOLD_WITHIN):
                    ranges = await _told_by(redis)
            except (RedisError, OSError) as error:
                # A timeout of asyncio's own says nothing.
                failed = error if str(error) else TimeoutError(f"no answer within {_TOLD_WITHIN:g} s")
                continue
            except RuntimeError as error:
                if not is_closed(error):
                    raise
                failed = error
                continue
            self._is_cluster = ranges is not None
            if ranges is not None:
                await self._are_at(ranges)
            elif len(self._seeds) > 1:
                raise FatalError(
                    f"Redis at {without_password(self._url)} is no cluster: give one host of it", Stop.REDIS
                )
            return
        assert failed is not None
        raise failed

    async def _are_at(self, ranges: Ranges) -> None:
        addresses = sorted({address for _, _, address in ranges})
        if addresses != sorted(self._primaries):
            log.info("Redis is a cluster, with primaries at %s", ", ".join(addresses) or "none")
        url = urlsplit(each_host(self._url)[0])
        if url.scheme == "unix":
            raise FatalError(
                f"Redis at {without_password(self._url)} is of a cluster, which no socket leads to: give a host",
                Stop.REDIS,
            )
        credentials, at, _ = url.netloc.rpartition("@")
        primaries = {
            address: _client(urlunsplit(url._replace(netloc=f"{credentials}{at}{address}")))
            for address in addresses
            if address not in self._primaries
        }
        gone = [self._primaries.pop(address) for address in set(self._primaries) - set(addresses)]
        self._primaries |= primaries
        self._ranges, self._by_shard = ranges, {}
        for redis in gone:
            await redis.aclose()

    async def _settled(self) -> Ranges | None:
        """Where the shards are, asked now. Raises UnavailableError where some are on their way."""
        if not self._is_cluster:
            return None
        self.look_again()
        for redis in await self.all():
            if _is_moving(await cast(Any, redis).execute_command("CLUSTER", "NODES")):
                raise UnavailableError("slots of the Redis Cluster are being moved: try again when they are")
        return self._ranges


async def _told_by(redis: "Redis") -> Ranges | None:
    """Where the slots are by what one server says; None where it is none of a cluster."""
    if not (await redis.info("cluster")).get("cluster_enabled"):
        return None
    ask = cast(Any, redis).execute_command
    if b"cluster_state:ok" not in await ask("CLUSTER", "INFO"):
        raise ClusterError("the Redis Cluster is down (cluster_state)")
    # A server that does not know its own name leaves it out: it is where it was asked.
    here = redis.connection_pool.connection_kwargs.get("host", "")
    found = parse_cluster_slots(await ask("CLUSTER", "SLOTS"), current_host=here)
    return sorted((first, last, _address(*part["primary"])) for (first, last), part in found.items())


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_moving(nodes: Any) -> bool:
    """Whether a server tells of its own slots that one comes or goes: `[slot->-to]`, `[slot-<-from]`."""
    text = nodes.decode() if isinstance(nodes, bytes) else str(nodes)
    return any("[" in part for line in text.splitlines() for part in line.split()[8:])
