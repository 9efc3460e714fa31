"""`kizuna tail`: follows a topic."""

import json
from collections.abc import Callable
from itertools import islice
from typing import Any

import click
from kafka.consumer.fetcher import ConsumerRecord

from cli.letters import DeadLetter, letter_text
from cli.options import json_option, print_lines, settings_options
from cli.records import lasting, reading, record_line, second, shown
from schemas.tier_change import EVENT_TYPES
from schemas.times import SECOND
from streams.protocols import COMMANDS, PURCHASES, TOUCHPOINTS
from streams.settings import Settings
from streams.topics import (
    ATTRIBUTIONS,
    CUSTOMER_TIERS,
    DEAD_LETTERS,
    NURTURING_TRIGGERS,
    SEGMENT_CHANGES,
    TIER_CHANGES,
)

Text = Callable[[ConsumerRecord], str]


@click.command()
@click.argument(
    "topic",
    type=click.Choice(
        [
            *(TIER_CHANGES, CUSTOMER_TIERS, SEGMENT_CHANGES, NURTURING_TRIGGERS, ATTRIBUTIONS, DEAD_LETTERS),
            *(PURCHASES, TOUCHPOINTS, COMMANDS),
        ]
    ),
    metavar="TOPIC",
)
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest record that is kept.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="End after so many records.")
@click.option("--no-follow", is_flag=True, help="End at what is there now; begins with the oldest.")
@settings_options("brokers", "topic_prefix")
@json_option
def tail(
    settings: Settings, topic: str, from_beginning: bool, limit: int | None, no_follow: bool, as_json: bool
) -> None:
    """Show the records of TOPIC as they come, until Ctrl-C.

    TOPIC is tier-changes (every change), customer-tiers (each customer's newest), segment-changes,
    nurturing-triggers, attributions, dead-letters, purchases, touchpoints or customer-commands.

    Shows new records only, unless --from-beginning is given. Those of one customer come in order, those of
    different customers as they are read. Records of transactions that are open or were aborted are not shown.
    """
    text = record_line if as_json else _TEXTS[topic]
    with reading(settings, topic) as reader:
        ends = reader.ends()
        if from_beginning or no_follow:
            reader.seek_to_beginning()
        else:
            reader.seek(ends)
        if not no_follow:
            click.secho(f"following {settings.topic(topic)}, Ctrl-C ends it", dim=True, err=True)
        left = limit
        for records in reader.until(ends) if no_follow else reader.follow():
            lines = [text(record) for record in islice(records, left)]
            if as_json:
                print_lines(lines)
            else:
                click.echo("\n".join(lines))
            if left is not None:
                left -= len(lines)
                if not left:
                    return


def _tier_change(record: ConsumerRecord) -> str:
    body = _body(record)
    if not {"effective_at", "customer_id", "previous_tier", "tier", "reason"} <= body.keys():
        return _raw(record)
    kind = _kind(record, body)
    tier = shown(body["tier"])
    if kind == "at-risk":
        until = shown(body.get("at_risk_until"))[:19] + "Z"
        told = f"{tier} {click.style('at risk', fg='yellow', bold=True)} until {until}"
    elif kind == "retained":
        told = f"{tier} {click.style('retained', fg='green', bold=True)}"
    else:
        colour = "green" if body.get("direction") == "upgrade" else "yellow"
        told = f"{shown(body['previous_tier'])} → {click.style(tier, fg=colour, bold=True)}"
    return f"{_customer(body)}  {told}  {_dim(shown(body['reason']))}"


def _kind(record: ConsumerRecord, body: dict[str, Any]) -> str:
    """`changed`, `at-risk` or `retained`: by its header, else by what the body has."""
    types = {value for name, value in record.headers if name == "ce_type"}
    for kind, named in EVENT_TYPES.items():
        if named.encode() in types:
            return kind
    if body["previous_tier"] != body["tier"] or "direction" in body:
        return "changed"
    return "at-risk" if "at_risk_until" in body else "retained"


def _segment_change(record: ConsumerRecord) -> str:
    body = _body(record)
    if not {"effective_at", "customer_id", "previous_segment", "segment", "reason"} <= body.keys():
        return _raw(record)
    before = body["previous_segment"]
    told = (
        f"{'' if before is None else shown(before) + ' '}→ {click.style(shown(body['segment']), bold=True)}"
    )
    axes = f"value {shown(body.get('value'))}, attachment {shown(body.get('attachment'))}"
    return f"{_customer(body)}  {told}  {_dim(shown(body['reason']))}  {_dim(axes)}"


def _trigger(record: ConsumerRecord) -> str:
    body = _body(record)
    if not {"effective_at", "customer_id", "scenario", "status", "channel"} <= body.keys():
        return _raw(record)
    if body["scenario"] is None:
        what = "a contact"
    else:
        step = f"{shown(body.get('step'))}/{shown(body.get('steps'))}"
        what = f"{shown(body['scenario'])} {step}, {shown(body.get('content'))}"
    status = shown(body["status"])
    colour = _STATUS.get(status, "yellow")
    why = "" if body.get("reason") is None else f"  {_dim(shown(body['reason']))}"
    told = f"{click.style(status, fg=colour, bold=True)} by {shown(body['channel'])}: {what}"
    return f"{_customer(body)}  {told}{why}"


_STATUS = {"sent": "green", "reserved": "cyan"}


def _attribution(record: ConsumerRecord) -> str:
    body = _body(record)
    conversion, touch = _inner(body, "conversion"), _inner(body, "touch")
    if not {"effective_at", "customer_id", "status"} <= body.keys() or "kind" not in conversion:
        return _raw(record)
    if conversion["kind"] == "purchase":
        what = f"order {shown(conversion.get('order_id'))}"
    else:
        what = shown(conversion["kind"])
    if conversion.get("store_id") is not None:
        what += f" in store {shown(conversion['store_id'])}"
    if not touch:
        return f"{_customer(body)}  {what}  {click.style(shown(body['status']), fg='yellow', bold=True)}"
    money = "" if body.get("amount") is None else f"  {shown(body['amount'])} {shown(body.get('currency'))}"
    lag = body.get("lag_seconds") or ""
    # A number of another form is shown as it stands; nobody sends years with more digits than these.
    after = (
        f"{lasting(int(lag) * SECOND)} after" if lag.isdecimal() and len(lag) < _LAG_DIGITS else shown(lag)
    )
    channel = click.style(shown(touch.get("channel")), fg="green", bold=True)
    by = f"{after} {channel} {shown(touch.get('event_id'))}"
    return f"{_customer(body)}  {what}{money}  {by}  {_dim(shown(body.get('match')))}"


_LAG_DIGITS = 12


def _customer(body: dict[str, Any]) -> str:
    at = shown(body["effective_at"])[:19] + "Z"
    return f"{_dim(at)}  {shown(body['customer_id']):<12}"


def _purchase(record: ConsumerRecord) -> str:
    body = _body(record)
    if not {"occurred_at", "customer_id", "type", "amount", "currency"} <= body.keys():
        return _raw(record)
    kind = click.style(f"{shown(body['type']):<8}", fg="yellow" if body["type"] == "refund" else "green")
    money = f"{shown(body['amount']):>10} {shown(body['currency'])}"
    return (
        f"{_dim(shown(body['occurred_at']))}  {shown(body['customer_id']):<12}  {kind}  {money}  "
        f"{_dim('order ' + shown(body.get('order_id')))}"
    )


def _touchpoint(record: ConsumerRecord) -> str:
    body = _body(record)
    if not {"occurred_at", "customer_id", "channel", "direction"} <= body.keys():
        return _raw(record)
    direction = click.style(
        f"{shown(body['direction']):<8}", fg="green" if body["direction"] == "inbound" else "cyan"
    )
    return (
        f"{_dim(shown(body['occurred_at']))}  {shown(body['customer_id']):<12}  {direction}  "
        f"{shown(body['channel'])}  {_dim(shown(body.get('action')))}"
    )


def _dead_letter(record: ConsumerRecord) -> str:
    return letter_text(DeadLetter.of(record))


def _raw(record: ConsumerRecord) -> str:
    place = f"[{record.partition}]@{record.offset}"
    return f"{_dim(second(record.timestamp))}  {shown(record.key):<12}  {_dim(place)}  {shown(record.value)}"


_TEXTS: dict[str, Text] = {
    TIER_CHANGES: _tier_change,
    CUSTOMER_TIERS: _tier_change,
    SEGMENT_CHANGES: _segment_change,
    NURTURING_TRIGGERS: _trigger,
    ATTRIBUTIONS: _attribution,
    PURCHASES: _purchase,
    TOUCHPOINTS: _touchpoint,
    COMMANDS: _raw,
    DEAD_LETTERS: _dead_letter,
}


def _body(record: ConsumerRecord) -> dict[str, Any]:
    """The value's fields as text where they are simple; empty where it is no JSON object."""
    return _fields(record.value)


def _inner(body: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields of a field that is an object, in the same way."""
    return _fields(body.get(name))


def _fields(text: bytes | str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "", parse_float=str, parse_int=str)
    except (ValueError, TypeError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: value if value is None or isinstance(value, str) else json.dumps(value)
        for name, value in found.items()
    }


def _dim(text: str) -> str:
    return click.style(text, dim=True)
