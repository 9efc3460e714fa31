"""The loyalty program's file: TOML, checked whole, into values. See ``docs/program.md`` for every key."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from schemas.money import MINOR_UNITS
from schemas.program_bond_sections import BOND_SECTIONS, read_bonds
from schemas.program_bonds import Bonds
from schemas.program_table import ProgramError, Table, money, refuse, whole
from schemas.program_tiers import Downgrade, RefundPolicy, Tier, read_tiers
from schemas.times import DAY, format_ms
from schemas.zones import time_zone

__all__ = [
    "Downgrade",
    "Program",
    "ProgramError",
    "RefundPolicy",
    "Scores",
    "Tier",
    "load_program",
    "parse_program",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEDGER_BEYOND_WINDOW = 90 * DAY

_PROGRAM_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RATE = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,12})?")

_CURRENCY_ALLOWED = 'an active ISO 4217 code with a minor unit, such as "USD" or "JPY"'

SECTIONS = ("program", "rates", "tiers", "scores")
PROGRAM_KEYS = (
    *("id", "currency", "timezone", "window", "contact_window", "ledger", "allowed_lateness", "max_future"),
    *("publish_from", "protect_until"),
)
SCORE_KEYS = ("recency_days", "frequency", "monetary")


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
    unit of a currency in the program's; ``publish_from`` and ``protect_until`` are epoch milliseconds.
    ``version`` is 16 hexadecimal digits of a hash over what the file means: comments, layout, key order and
    another writing of the same value (``24h`` for ``1d``, a default spelt out) leave it as it is. ``text`` is
    the file itself: whoever has it has the program. ``bonds`` is None where the file has none of those sections.
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
    protect_until: int | None = None
    text: str = ""
    bonds: Bonds | None = None


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
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        document = tomllib.loads(decoded)
    except UnicodeDecodeError:
        raise ProgramError("file: expected UTF-8") from None
    except (ValueError, RecursionError) as error:
        # Also of a number with thousands of digits, which tomllib leaves to int().
        raise ProgramError(f"file: expected TOML ({' '.join(str(error).split())})") from None
    file = Table("", document, (*SECTIONS, *BOND_SECTIONS))
    program = _program(file)
    canonical = json.dumps(_canonical(program), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    version = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    return msgspec.structs.replace(program, version=version, text=decoded)


def _program(file: Table) -> Program:
    head = Table("program", file.get("program", "a table [program]"), PROGRAM_KEYS)
    program_id = head.text("id", "1 to 64 letters, digits, dots, underscores or dashes")
    if not _PROGRAM_ID.fullmatch(program_id):
        refuse("program.id", "expected 1 to 64 letters (A-Z, a-z), digits, dots, underscores or dashes")
    currency = head.text("currency", _CURRENCY_ALLOWED)
    if currency not in MINOR_UNITS:
        refuse("program.currency", f"expected {_CURRENCY_ALLOWED}")
    decimals = MINOR_UNITS[currency]
    window = head.duration("window", least=1)
    tiers = read_tiers(file, decimals, window)
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
        publish_from=_instant(head, "publish_from"),
        rates=_rates(file, currency),
        tiers=tiers,
        scores=_scores(file, decimals),
        protect_until=_instant(head, "protect_until"),
        bonds=read_bonds(file, decimals, window, tiers),
    )


def _timezone(head: Table) -> str:
    allowed = 'the name of an IANA time zone, such as "UTC" or "Europe/Paris"'
    name = head.text("timezone", allowed, "UTC")
    try:
        time_zone(name)
    except ValueError:
        refuse("program.timezone", f"expected {allowed}")
    return name


def _contact_days(head: Table) -> int:
    days, rest = divmod(head.duration("contact_window", "30d", least=1), DAY)
    if rest:
        refuse("program.contact_window", 'expected whole days, at least one, such as "30d"')
    return days


def _ledger(head: Table, window: int) -> int:
    if "ledger" not in head:
        return window + _LEDGER_BEYOND_WINDOW
    ledger = head.duration("ledger")
    if ledger < window:
        refuse("program.ledger", "expected a duration at least as long as program.window")
    return ledger


def _instant(head: Table, key: str) -> int | None:
    if key not in head:
        return None
    allowed = "expected a date and time with an offset, without quotes, such as 2026-12-01T00:00:00Z"
    value = head.values[key]
    if not isinstance(value, datetime) or value.tzinfo is None:
        refuse(head.at(key), allowed)
    at = (value - _EPOCH) // timedelta(milliseconds=1)
    try:
        format_ms(at)
    except ValueError:
        # In UTC the year 0 or 10000: such an instant could not be shown again.
        refuse(head.at(key), allowed)
    return at


def _rates(file: Table, currency: str) -> dict[str, Decimal]:
    if "rates" not in file:
        return {}
    table = Table("rates", file.values["rates"], None)
    rates = {}
    for code in sorted(table.values):
        if code not in MINOR_UNITS:
            refuse(table.at(code), f"unknown key; allowed is {_CURRENCY_ALLOWED}")
        if code == currency:
            refuse(table.at(code), "unknown key; allowed are currencies other than program.currency")
        text = table.text(code, 'a decimal above zero, such as "1.08"')
        if not _RATE.fullmatch(text) or not Decimal(text):
            refuse(
                table.at(code),
                'expected a decimal above zero, up to 9 digits before the point and 12 after, such as "1.08"',
            )
        rates[code] = Decimal(text)
    return rates


def _scores(file: Table, decimals: int) -> Scores:
    table = Table("scores", file.get("scores", f"a table [scores] with {', '.join(SCORE_KEYS)}"), SCORE_KEYS)
    days = _cut_points(table, "recency_days", lambda key, value: whole(key, value) * DAY)
    frequency = _cut_points(table, "frequency", whole)
    monetary = _cut_points(table, "monetary", lambda key, value: money(key, value, decimals))
    return Scores(days, frequency, monetary)


def _cut_points(table: Table, key: str, read: Any) -> tuple[int, int, int, int]:
    allowed = "an array of four cut points, each above the one before"
    entries = table.get(key, allowed)
    if not isinstance(entries, list) or len(entries) != 4:
        refuse(table.at(key), f"expected {allowed}")
    first, second, third, fourth = (
        read(f"{table.at(key)}[{index}]", entry) for index, entry in enumerate(entries)
    )
    if not first < second < third < fourth:
        refuse(table.at(key), f"expected {allowed}")
    return first, second, third, fourth


# Keys that programs did not have at first.
_LATER_TIER_KEYS = (
    "retain_monetary",
    "retain_frequency",
    "grace_period",
    "downgrade",
    "refund_policy",
    "benefits",
)


def _canonical(program: Program) -> dict[str, Any]:
    """What the version is a hash of. A key added to programs later belongs in here only where it says something
    else than its default: otherwise every existing store would refuse its own, unchanged program."""
    content: dict[str, Any] = msgspec.to_builtins(program, builtin_types=(Decimal,))
    del content["version"], content["text"], content["decimals"]
    content["rates"] = {code: f"{rate.normalize():f}" for code, rate in program.rates.items()}
    if program.protect_until is None:
        del content["protect_until"]
    if program.bonds is None:
        del content["bonds"]
    else:
        content["bonds"] = _without_defaults(program.bonds)
    for tier, told in zip(program.tiers, content["tiers"], strict=True):
        plain = Tier(tier.name)
        for key in _LATER_TIER_KEYS:
            if getattr(tier, key) == getattr(plain, key):
                del told[key]
    return content


def _without_defaults(value: Any) -> Any:
    """A struct of the bonds, as JSON values, without what says only its default, at every depth."""
    if isinstance(value, tuple):
        return [_without_defaults(entry) for entry in value]
    if not isinstance(value, msgspec.Struct):
        return value
    return {
        field.name: _without_defaults(given)
        for field in msgspec.structs.fields(value)
        if (given := getattr(value, field.name)) != field.default
    }
