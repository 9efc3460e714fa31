"""The loyalty program's file: TOML, checked whole, into values. See ``docs/program.md`` for every key."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from schemas.money import MINOR_UNITS, parse_minor
from schemas.times import DAY, parse_duration
from schemas.zones import time_zone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEDGER_BEYOND_WINDOW = 90 * DAY
_MOST = 1_000_000_000

_PROGRAM_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RATE = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,12})?")

_DURATION_ALLOWED = 'a duration such as "365d", "24h", "5m", "0s" or "500ms"'
_CURRENCY_ALLOWED = 'an active ISO 4217 code with a minor unit, such as "USD" or "JPY"'

_SECTIONS = ("program", "rates", "tiers", "scores")
_PROGRAM_KEYS = (
    *("id", "currency", "timezone", "window", "contact_window", "ledger", "allowed_lateness", "max_future"),
    "publish_from",
)
_THRESHOLDS = ("min_monetary", "min_frequency", "max_recency")
_SCORE_KEYS = ("recency_days", "frequency", "monetary")


class ProgramError(ValueError):
    """A program file that cannot be used. One line: the key, and what is allowed there."""


class Tier(msgspec.Struct, frozen=True):
    """One tier and what it takes. A threshold of 0, or a ``max_recency`` of None, asks for nothing.

    ``min_monetary`` is in minor units of the program's currency, ``max_recency`` in milliseconds: the tier
    holds while recency is below it.
    """

    name: str
    min_monetary: int = 0
    min_frequency: int = 0
    max_recency: int | None = None


class Scores(msgspec.Struct, frozen=True):
    """Four rising cut points each. ``recency`` is in milliseconds, ``monetary`` in minor units.

    Recency at or below its first cut scores 5; frequency and monetary at or above their last score 5.
    """

    recency: tuple[int, int, int, int]
    frequency: tuple[int, int, int, int]
    monetary: tuple[int, int, int, int]


class Program(msgspec.Struct, frozen=True):
    """A loyalty program, checked. Durations are milliseconds, money is minor units of ``currency``.

    ``decimals`` are the currency's; ``tiers`` go from the lowest up; ``rates`` give the price of one whole
    unit of a currency in the program's; ``publish_from`` is epoch milliseconds. ``version`` is 16 hexadecimal
    digits of a hash over what the file means: comments, layout, key order and another writing of the same
    value (``24h`` for ``1d``, a default spelt out) leave it as it is.
    """

    id: str
    currency: str
    decimals: int
    timezone: str
    window: int
    contact_days: int
    ledger: int
    allowed_lateness: int
    max_future: int
    publish_from: int | None
    rates: dict[str, Decimal]
    tiers: tuple[Tier, ...]
    scores: Scores
    version: str = ""


def load_program(path: str | Path) -> Program:
    """Read and check a program file. Raises ``ProgramError``, also where the file cannot be read."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ProgramError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return parse_program(content)
    except ProgramError as error:
        raise ProgramError(f"{path}: {error}") from error


def parse_program(text: str | bytes) -> Program:
    """Check a program file's content, the whole of it. Raises ``ProgramError`` at the first thing amiss."""
    try:
        document = tomllib.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except UnicodeDecodeError:
        raise ProgramError("file: expected UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProgramError(f"file: expected TOML ({' '.join(str(error).split())})") from None
    file = _Table("", document, _SECTIONS)
    program = _program(file)
    canonical = json.dumps(_canonical(program), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return msgspec.structs.replace(program, version=hashlib.sha256(canonical.encode()).hexdigest()[:16])


class _Table:
    """One table of the file, all of whose keys are known ones."""

    def __init__(self, path: str, values: object, allowed: tuple[str, ...] | None) -> None:
        self.path = path
        if not isinstance(values, dict):
            _refuse(path, f"expected a table [{path}]")
        self.values: dict[str, Any] = values
        for key in self.values if allowed is not None else ():
            if key not in (allowed or ()):
                _refuse(self.at(key), f"unknown key; allowed are {', '.join(allowed or ())}")

    def at(self, key: str) -> str:
        shown = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
        return f"{self.path}.{shown}" if self.path else shown

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str, allowed: str, default: object = None) -> Any:
        value = self.values.get(key, default)
        if value is None:
            _refuse(self.at(key), f"missing; allowed is {allowed}")
        return value

    def text(self, key: str, allowed: str, default: str | None = None) -> str:
        value = self.get(key, allowed, default)
        if not isinstance(value, str):
            _refuse(self.at(key), f"expected {allowed}, in quotes")
        return value

    def duration(self, key: str, default: str | None = None, least: int = 0) -> int:
        text = self.text(key, _DURATION_ALLOWED, default)
        try:
            value = parse_duration(text)
        except ValueError:
            _refuse(self.at(key), f"expected {_DURATION_ALLOWED}")
        if value < least:
            _refuse(self.at(key), "expected a duration above zero")
        return value


def _refuse(key: str, allowed: str) -> NoReturn:
    raise ProgramError(f"{key}: {allowed}")


def _program(file: _Table) -> Program:
    head = _Table("program", file.get("program", "a table [program]"), _PROGRAM_KEYS)
    program_id = head.text("id", "1 to 64 letters, digits, dots, underscores or dashes")
    if not _PROGRAM_ID.fullmatch(program_id):
        _refuse("program.id", "expected 1 to 64 letters (A-Z, a-z), digits, dots, underscores or dashes")
    currency = head.text("currency", _CURRENCY_ALLOWED)
    if currency not in MINOR_UNITS:
        _refuse("program.currency", f"expected {_CURRENCY_ALLOWED}")
    decimals = MINOR_UNITS[currency]
    window = head.duration("window", least=1)
    return Program(
        id=program_id,
        currency=currency,
        decimals=decimals,
        timezone=_timezone(head),
        window=window,
        contact_days=_contact_days(head),
        ledger=_ledger(head, window),
        allowed_lateness=head.duration("allowed_lateness", "0s"),
        max_future=head.duration("max_future", "5m"),
        publish_from=_publish_from(head),
        rates=_rates(file, currency),
        tiers=_tiers(file, decimals, window),
        scores=_scores(file, decimals),
    )


def _timezone(head: _Table) -> str:
    allowed = 'the name of an IANA time zone, such as "UTC" or "Europe/Paris"'
    name = head.text("timezone", allowed, "UTC")
    try:
        time_zone(name)
    except ValueError:
        _refuse("program.timezone", f"expected {allowed}")
    return name


def _contact_days(head: _Table) -> int:
    days, rest = divmod(head.duration("contact_window", "30d", least=1), DAY)
    if rest:
        _refuse("program.contact_window", 'expected whole days, at least one, such as "30d"')
    return days


def _ledger(head: _Table, window: int) -> int:
    if "ledger" not in head:
        return window + _LEDGER_BEYOND_WINDOW
    ledger = head.duration("ledger")
    if ledger < window:
        _refuse("program.ledger", "expected a duration at least as long as program.window")
    return ledger


def _publish_from(head: _Table) -> int | None:
    if "publish_from" not in head:
        return None
    value = head.values["publish_from"]
    if not isinstance(value, datetime) or value.tzinfo is None:
        _refuse(
            "program.publish_from",
            "expected a date and time with an offset, without quotes, such as 2026-12-01T00:00:00Z",
        )
    return (value - _EPOCH) // timedelta(milliseconds=1)


def _rates(file: _Table, currency: str) -> dict[str, Decimal]:
    if "rates" not in file:
        return {}
    table = _Table("rates", file.values["rates"], None)
    rates = {}
    for code in sorted(table.values):
        if code not in MINOR_UNITS:
            _refuse(table.at(code), f"unknown key; allowed is {_CURRENCY_ALLOWED}")
        if code == currency:
            _refuse(table.at(code), "unknown key; allowed are currencies other than program.currency")
        text = table.text(code, 'a decimal above zero, such as "1.08"')
        if not _RATE.fullmatch(text) or not Decimal(text):
            _refuse(
                table.at(code),
                'expected a decimal above zero, up to 9 digits before the point and 12 after, such as "1.08"',
            )
        rates[code] = Decimal(text)
    return rates


def _tiers(file: _Table, decimals: int, window: int) -> tuple[Tier, ...]:
    entries = file.get("tiers", "one [[tiers]] or more, the lowest first")
    if not isinstance(entries, list) or not entries:
        _refuse("tiers", "expected one [[tiers]] or more, the lowest first")
    tiers: list[Tier] = []
    for index, entry in enumerate(entries):
        table = _Table(f"tiers[{index}]", entry, ("name", *_THRESHOLDS))
        tier = _tier(table, decimals, window)
        if any(tier.name == lower.name for lower in tiers):
            _refuse(table.at("name"), "expected a name that no tier before it has")
        if not tiers:
            for key in _THRESHOLDS:
                if key in table:
                    _refuse(table.at(key), "not allowed here: the first tier has no thresholds")
        else:
            if not any(key in table for key in _THRESHOLDS):
                _refuse(table.path, f"expected at least one of {', '.join(_THRESHOLDS)}")
            _check_strictness(table, tier, tiers[-1])
        tiers.append(tier)
    return tuple(tiers)


def _tier(table: _Table, decimals: int, window: int) -> Tier:
    name = table.text("name", "a name of 1 to 64 characters")
    if not 1 <= len(name) <= 64:
        _refuse(table.at("name"), "expected 1 to 64 characters")
    min_monetary = min_frequency = 0
    max_recency = None
    if "min_monetary" in table:
        min_monetary = _money(table.at("min_monetary"), table.values["min_monetary"], decimals)
    if "min_frequency" in table:
        min_frequency = _whole(table.at("min_frequency"), table.values["min_frequency"])
    if "max_recency" in table:
        max_recency = table.duration("max_recency", least=1)
        if max_recency >= window:
            _refuse(table.at("max_recency"), "expected a duration shorter than program.window")
    return Tier(name, min_monetary, min_frequency, max_recency)


def _check_strictness(table: _Table, tier: Tier, below: Tier) -> None:
    """A tier above must hold for no one for whom the tier below does not: the tiers are then a ladder."""
    stricter = "expected to be at least as strict as in the tier below"
    if tier.min_monetary < below.min_monetary:
        _refuse(table.at("min_monetary"), f"{stricter}, not lower")
    if tier.min_frequency < below.min_frequency:
        _refuse(table.at("min_frequency"), f"{stricter}, not lower")
    if below.max_recency is not None and (tier.max_recency is None or tier.max_recency > below.max_recency):
        _refuse(table.at("max_recency"), f"{stricter}, not longer")


def _scores(file: _Table, decimals: int) -> Scores:
    table = _Table(
        "scores", file.get("scores", f"a table [scores] with {', '.join(_SCORE_KEYS)}"), _SCORE_KEYS
    )
    days = _cut_points(table, "recency_days", lambda key, value: _whole(key, value) * DAY)
    frequency = _cut_points(table, "frequency", _whole)
    monetary = _cut_points(table, "monetary", lambda key, value: _money(key, value, decimals))
    return Scores(days, frequency, monetary)


def _cut_points(table: _Table, key: str, read: Any) -> tuple[int, int, int, int]:
    allowed = "an array of four cut points, each above the one before"
    entries = table.get(key, allowed)
    if not isinstance(entries, list) or len(entries) != 4:
        _refuse(table.at(key), f"expected {allowed}")
    first, second, third, fourth = (
        read(f"{table.at(key)}[{index}]", entry) for index, entry in enumerate(entries)
    )
    if not first < second < third < fourth:
        _refuse(table.at(key), f"expected {allowed}")
    return first, second, third, fourth


def _whole(key: str, value: object) -> int:
    # type(), as true and false are integers to Python.
    if type(value) is not int or not 1 <= value <= _MOST:
        _refuse(key, f"expected a whole number from 1 to {_MOST}, without quotes")
    return value


def _money(key: str, value: object, decimals: int) -> int:
    allowed = (
        f"an amount above zero in quotes with at most {decimals} decimals and 13 digits before the point"
    )
    if not isinstance(value, str):
        _refuse(key, f"expected {allowed}")
    try:
        amount = parse_minor(value, decimals)
    except ValueError:
        _refuse(key, f"expected {allowed}")
    if not amount:
        _refuse(key, f"expected {allowed}")
    return amount


def _canonical(program: Program) -> dict[str, Any]:
    """What the version is a hash of. A key added to programs later belongs in here only where it is given:
    otherwise every existing store would refuse its own, unchanged program."""
    content: dict[str, Any] = msgspec.to_builtins(program, builtin_types=(Decimal,))
    del content["version"], content["decimals"]
    content["rates"] = {code: f"{rate.normalize():f}" for code, rate in program.rates.items()}
    return content
