"""`kizuna dead-letters replay`: dead letters go back to their topics."""

import asyncio
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import click
from aiokafka import AIOKafkaProducer

from cli.letters import Choice, DeadLetter, choice_options, chosen, letter_text
from cli.options import counted, json_option, print_json, settings_options
from cli.records import reading, shown
from cli.running import run
from schemas.murmur2 import home
from streams.protocols import INPUTS, FatalError
from streams.settings import Settings
from streams.topics import DEAD_LETTERS, administration, describe

#: Sent at a time; a failure leaves at most so many in doubt.
_PART = 500
_BATCH_BYTES = 512 * 1024
#: Above what the topics take, so that the broker judges a record's size.
_REQUEST_BYTES = 4 * 1024 * 1024


@click.command()
@choice_options
@click.option("--all", "everything", is_flag=True, help="Every dead letter that there is.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before sending.")
@click.option(
    "--edit-with",
    metavar="COMMAND",
    help="Repair each value with this command, from its standard input to its standard output, such as "
    '"jq -c \'.currency = \\"USD\\"\'". What it answers with nothing is left out.',
)
@settings_options("brokers", "topic_prefix")
@json_option
def replay(
    settings: Settings,
    choice: Choice,
    everything: bool,
    dry_run: bool,
    yes: bool,
    edit_with: str | None,
    as_json: bool,
) -> None:
    """Send dead letters back to the topics they came from, to be read once more.

    Say which ones: with --all, or with one or more of --reason, --topic, --since, or with --topic,
    --partition and --offset for exactly one.

    Each goes back with its key, its value (as --edit-with repairs it) and its own headers, into the
    partition of its key. Those that are still wrong come back as new dead letters. The old ones stay in the
    topic, which is a log; what is sent twice is counted once, by its event_id.

    One that was too large to be kept whole cannot be sent back: it is named, and the exit status is 1.
    """
    if everything != choice.is_everything:
        raise click.UsageError(
            "--all goes without --reason, --topic and --since"
            if everything
            else "say which ones: --all, --reason, --topic, --since, or --topic with --partition and --offset"
        )
    replaying = _Replay(settings, _partitions(settings), _editor(edit_with))
    with reading(settings, DEAD_LETTERS) as reader:
        ends = reader.ends()
        if not (dry_run or yes):
            count = sum(len(letters) for letters in chosen(reader, ends, settings, choice))
            if count and not _confirmed(count):
                click.echo("nothing was sent", err=True)
                return
        parts = replaying.parts(chosen(reader, ends, settings, choice))
        if dry_run:
            replaying.show(parts, quiet=as_json)
        else:
            run(replaying.send(parts))
    if choice.offset is not None and not replaying.found:
        place = f"{settings.topic(choice.topic or '')}[{choice.partition}]@{choice.offset}"
        raise FatalError(f"there is no dead letter of {place}")
    replaying.summary(dry_run, as_json)


def _partitions(settings: Settings) -> dict[str, int]:
    """Partitions of each input, by its name in Kafka."""
    with administration(settings) as admin:
        cluster = describe(admin, settings)
    return {settings.topic(name): cluster.partitions[name] for name in INPUTS if name in cluster.partitions}


def _confirmed(count: int) -> bool:
    if not sys.stdin.isatty():
        found = counted(count, "dead letter")
        raise FatalError(f"{found} would be sent back: say --yes, or --dry-run to see what")
    # Not click's own question, which writes to standard output too.
    click.echo(f"Send {counted(count, 'dead letter')} back? [y/N] ", nl=False, err=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


@dataclass(slots=True)
class _Back:
    """What goes back of a dead letter."""

    letter: DeadLetter
    partition: int
    value: bytes | None


@dataclass(slots=True)
class _Replay:
    settings: Settings
    partitions: dict[str, int]
    editor: list[str]
    found: int = 0
    left_out: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    impossible: list[tuple[DeadLetter, str]] = field(default_factory=list)

    def parts(self, found: Iterable[Sequence[DeadLetter]]) -> Iterator[list[_Back]]:
        """What goes back, a part at a time; names what cannot, and takes one original once."""
        seen: set[tuple[str, int | None, int | None, int | None]] = set()
        for letters in found:
            ready: list[_Back] = []
            for letter in letters:
                # A worker that was set back may have written it twice.
                original = (letter.topic, letter.partition, letter.offset, letter.timestamp)
                if original in seen:
                    continue
                seen.add(original)
                self.found += 1
                why = self._why_not(letter)
                if why is not None:
                    self.impossible.append((letter, why))
                    click.secho(f"{letter.place}: {why}", fg="yellow", err=True)
                elif back := self._back(letter):
                    ready.append(back)
                if len(ready) == _PART:
                    yield ready
                    ready = []
            if ready:
                yield ready

    def _why_not(self, letter: DeadLetter) -> str | None:
        if letter.topic not in self.partitions:
            return f"its topic {letter.topic!r} is no input here" if letter.topic else "it names no topic"
        if letter.partition is None:
            return "it names no partition"
        if letter.was_cut:
            return "it was too large to be kept whole, and cannot be sent back"
        return None

    def _back(self, letter: DeadLetter) -> _Back | None:
        key, count = letter.record.key, self.partitions[letter.topic]
        # Without a key it goes where it came from: the worker sends it on, if it is worth it.
        partition = (letter.partition or 0) % count if key is None else home(key, count)
        value = letter.record.value
        if self.editor:
            value = self._edited(letter)
            if not value:
                self.left_out += 1
                return None
        return _Back(letter, partition, value)

    def _edited(self, letter: DeadLetter) -> bytes:
        try:
            done = subprocess.run(
                self.editor, input=letter.record.value or b"", capture_output=True, check=False
            )
        except OSError as error:
            raise self._stopped(letter, f"{self.editor[0]} cannot be run ({error.strerror})") from error
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            told = f": {words[-1]}" if words else ""
            raise self._stopped(letter, f"{self.editor[0]} ended with {done.returncode}{told}")
        edited: bytes = done.stdout
        return edited.rstrip(b"\r\n")

    def _stopped(self, letter: DeadLetter, why: str) -> FatalError:
        return FatalError(f"{letter.place}: {why}; {self.sent.total():,} were sent before, it was not")

    def show(self, parts: Iterable[Sequence[_Back]], quiet: bool) -> None:
        """What would be sent, unless `quiet`."""
        for back in chain.from_iterable(parts):
            self.sent[back.letter.topic] += 1
            if not quiet:
                click.echo(letter_text(back.letter))
                if self.editor:
                    click.echo(f"    becomes {shown(back.value)}")

    async def send(self, parts: Iterable[Sequence[_Back]]) -> None:
        """Send part after part, and await that Kafka has it."""
        async with _producing(self.settings) as producer:
            for part in parts:
                await _deliver(producer, part)
                self.sent.update(back.letter.topic for back in part)

    def summary(self, dry_run: bool, as_json: bool) -> None:
        """Print what was done. Raises FatalError where some of it could not be."""
        if as_json:
            print_json(
                {
                    "dry_run": dry_run,
                    "sent": self.sent.total(),
                    "topics": dict(sorted(self.sent.items())),
                    "left_out": self.left_out,
                    "impossible": [
                        {
                            "topic": letter.topic,
                            "partition": letter.partition,
                            "offset": letter.offset,
                            "reason": letter.reason,
                            "why": why,
                        }
                        for letter, why in self.impossible
                    ],
                }
            )
        else:
            done = "would be sent back" if dry_run else "sent back"
            told = ", ".join(f"{count:,} to {topic}" for topic, count in sorted(self.sent.items()))
            left = f"; {self.left_out:,} left out by {self.editor[0]}" if self.left_out else ""
            click.secho(
                f"{counted(self.sent.total(), 'dead letter')} {done}{': ' if told else ''}{told}{left}",
                fg="green",
            )
        if self.impossible:
            raise FatalError(f"{counted(len(self.impossible), 'dead letter')} cannot be sent back")


def _editor(command: str | None) -> list[str]:
    if command is None:
        return []
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--edit-with: {error}") from error
    if not words:
        raise click.UsageError("--edit-with: expected a command")
    return words


@asynccontextmanager
async def _producing(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    # kafka-python takes no record without key and value, no header without a value: dead letters may be so.
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.broker_list(),
        client_id="kizuna-replay",
        enable_idempotence=True,
        acks="all",
        max_batch_size=_BATCH_BYTES,
        max_request_size=_REQUEST_BYTES,
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _deliver(producer: AIOKafkaProducer, part: Sequence[_Back]) -> None:
    building: dict[tuple[str, int], Any] = {}
    futures: list[asyncio.Future[Any]] = []
    for back in part:
        place = back.letter.topic, back.partition
        batch = building.get(place)
        if batch is None:
            batch = building[place] = producer.create_batch()
        if not _append(batch, back):
            futures.append(await _send(producer, batch, place))
            batch = building[place] = producer.create_batch()
            _append(batch, back)
    for place, batch in building.items():
        futures.append(await _send(producer, batch, place))
    await asyncio.gather(*futures)


def _append(batch: Any, back: _Back) -> bool:
    record = back.letter.record
    headers = back.letter.original_headers
    return batch.append(timestamp=None, key=record.key, value=back.value, headers=headers) is not None


async def _send(producer: AIOKafkaProducer, batch: Any, place: tuple[str, int]) -> "asyncio.Future[Any]":
    batch.close()
    future: asyncio.Future[Any] = await producer.send_batch(batch, place[0], partition=place[1])
    return future
