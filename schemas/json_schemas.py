"""The published JSON Schemas (2020-12), made from the field tables and from the own types of what is
published."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas import fields
from schemas.bond_records import AttributionEvent, BondEvent, SegmentEvent, TriggerEvent
from schemas.dead_letter import (
    DETAIL_HEADER,
    DLQ_HEADERS,
    OFFSET_HEADER,
    PARTITION_HEADER,
    REASON_HEADER,
    TIMESTAMP_HEADER,
    TOPIC_HEADER,
)
from schemas.fields import TextField
from schemas.money import AMOUNT_PATTERN
from schemas.rejection import Reason
from schemas.tier_change import Kind, TierEvent

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TIME_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_IDENTITY_NOTE = (
    "In CloudEvents binary mode ce_id and ce_source win over event_id and source, which may be left out then."
)


# Which fields are there in one kind of record only, and how its schema is named and described.
_OWN_FIELDS: dict[Kind, tuple[str, ...]] = {
    "changed": ("direction",),
    "at-risk": ("at_risk_until", "needed"),
    "retained": (),
}
# And which are there only by programs that have any.
_WHERE_THE_PROGRAM_HAS_SOME = ("benefits", "segment")
_TIER_EVENTS: dict[Kind, tuple[str, str]] = {
    "changed": ("tier-change", "A customer's tier changed."),
    "at-risk": ("tier-at-risk", "A customer's tier is at risk: it is kept until an instant, and then falls."),
    "retained": ("tier-retained", "A customer's tier is no longer at risk, or brings other benefits now."),
}
_BOND_EVENTS: dict[type[BondEvent], tuple[str, str]] = {
    SegmentEvent: ("segment-change", "A customer is in another segment."),
    TriggerEvent: (
        "nurturing-trigger",
        "A step of a scenario for one customer, to be sent or not, or a reserved contact.",
    ),
    AttributionEvent: (
        "attribution",
        "Which online touch brought a customer to a shop, or that none did after all.",
    ),
}


def purchase_schema() -> Schema:
    """What a purchase's body must be. Decimals by currency, rates and times are beyond a schema."""
    about = f"A purchase, or a part of one: purchases with one order_id add up. {_IDENTITY_NOTE}"
    return _event_schema("purchase", about, fields.PURCHASE_FIELDS, _amount_schema(positive=False))


def refund_schema() -> Schema:
    """What a refund's body must be."""
    about = f"A refund: lowers its order, at the order's own date. {_IDENTITY_NOTE}"
    return _event_schema("refund", about, fields.PURCHASE_FIELDS, _amount_schema(positive=True))


def touchpoint_schema() -> Schema:
    """What a touchpoint's body must be."""
    about = f"A contact between the customer and us. {_IDENTITY_NOTE}"
    return _event_schema("touchpoint", about, fields.TOUCHPOINT_FIELDS, None)


def override_schema() -> Schema:
    """What an override's body must be. Which tiers the program has, and which time is later, is beyond a schema."""
    about = f"Somebody decides a customer's tier by hand, for a time. {_IDENTITY_NOTE}"
    schema = _event_schema("override", about, fields.COMMAND_FIELDS, None)
    held = {name: schema["properties"][name] for name in fields.HOLDING_NAMES}
    for name, rules in held.items():
        # Whatever stands there is allowed where it is not read.
        shown = {key: rules.pop(key) for key in ("description", "examples")}
        schema["properties"][name] = shown
        schema["required"].remove(name)
    schema["if"] = {"properties": {fields.MODE.name: {"const": "clear"}}}
    schema["else"] = {"properties": held, "required": list(held)}
    return schema


def tier_event_schema(kind: Kind) -> Schema:
    """What the body of a tier's record of this kind is. New fields may come, so readers ignore what they do not
    know."""
    (schema,), definitions = msgspec.json.schema_components([TierEvent], ref_template="{name}")
    described = _inlined(schema, definitions)
    properties = described["properties"]
    # The values that exist now are listed for people; as a rule they would break readers when one is added.
    reason = properties["reason"]
    reason["examples"] = reason.pop("enum")
    reason["type"] = "string"
    for name in {name for names in _OWN_FIELDS.values() for name in names} - set(_OWN_FIELDS[kind]):
        del properties[name]
    title, about = _TIER_EVENTS[kind]
    return {
        **described,
        "title": title,
        "description": about,
        "required": [name for name in properties if name not in _WHERE_THE_PROGRAM_HAS_SOME],
    }


def bond_event_schema(kind: type[BondEvent]) -> Schema:
    """What the body of a record about a bond is. Fields and values may come, so readers ignore what they do not
    know."""
    (schema,), definitions = msgspec.json.schema_components([kind], ref_template="{name}")
    title, about = _BOND_EVENTS[kind]
    opened: Schema = _opened(_inlined(schema, definitions))
    return {**opened, "title": title, "description": about}


def dead_letter_headers_schema() -> Schema:
    """The headers that a dead letter has besides its original ones. All are text in UTF-8."""
    number = {"type": "string", "pattern": "^-?[0-9]+$"}
    return {
        "title": "dead-letter-headers",
        "description": "A dead letter's headers, after the record's own; of one given twice the last counts.",
        "type": "object",
        "properties": {
            REASON_HEADER: {
                "type": "string",
                "description": "Why, the first of these that held: " + ", ".join(Reason) + ".",
                "examples": [reason.value for reason in Reason],
            },
            DETAIL_HEADER: {
                "type": "string",
                "description": "Which field, and what was expected; what was cut, its length and SHA-256.",
                "examples": ["amount: expected at most 2 decimals"],
            },
            TOPIC_HEADER: {"type": "string", "description": "The topic it was read from, with its prefix."},
            PARTITION_HEADER: {**number, "description": "The partition it was read from."},
            OFFSET_HEADER: {**number, "description": "The offset it was read at."},
            TIMESTAMP_HEADER: {**number, "description": "The record's own timestamp, in epoch milliseconds."},
        },
        "required": list(DLQ_HEADERS),
    }


def all_schemas() -> dict[str, Schema]:
    """Every published schema by its name."""
    return {
        "purchase": purchase_schema(),
        "refund": refund_schema(),
        "touchpoint": touchpoint_schema(),
        "override": override_schema(),
        **{title: tier_event_schema(kind) for kind, (title, _) in _TIER_EVENTS.items()},
        **{title: bond_event_schema(kind) for kind, (title, _) in _BOND_EVENTS.items()},
        "dead-letter-headers": dead_letter_headers_schema(),
    }


def _event_schema(kind: str, about: str, table: tuple[TextField, ...], amount: Schema | None) -> Schema:
    properties: Schema = {}
    required = []
    for field in (*fields.IDENTITY_FIELDS, *table):
        properties[field.name] = _text_schema(field)
        if field.required:
            required.append(field.name)
        if field is fields.ORDER_ID and amount is not None:
            properties[fields.AMOUNT_NAME] = amount
            required.append(fields.AMOUNT_NAME)
    properties["type"] = {"const": kind}
    return {
        "title": kind,
        "description": about,
        "type": "object",
        "properties": properties,
        "required": required,
    }


def _text_schema(field: TextField) -> Schema:
    schema: Schema = {"type": "string" if field.required else ["string", "null"], "description": field.about}
    if field in (fields.OCCURRED_AT, fields.UNTIL):
        schema |= {"format": "date-time", "pattern": _TIME_PATTERN}
    elif field is fields.CURRENCY:
        schema["pattern"] = "^[A-Z]{3}$"
    elif field.choices:
        schema["enum"] = list(field.choices)
    else:
        if field.least:
            schema["minLength"] = field.least
        schema["maxLength"] = field.most
    if field.example is not None:
        schema["examples"] = [field.example]
    return schema


def _amount_schema(*, positive: bool) -> Schema:
    above_zero = r"(?!0(\.0+)?$)" if positive else ""
    number = {"type": "number", "exclusiveMinimum" if positive else "minimum": 0}
    return {
        "description": (
            "Judged on its text, as a string or a JSON number: no sign, no exponent, at most 13 digits "
            "before the point and no more decimals than the currency has."
            + (" More than zero." if positive else "")
        ),
        "oneOf": [{"type": "string", "pattern": f"^{above_zero}{AMOUNT_PATTERN}$"}, number],
        "examples": ["12.40", 12.4],
    }


def _opened(schema: Any) -> Any:
    """The schema, the values that exist now listed for people: as a rule they would break readers when one is
    added."""
    if isinstance(schema, list):
        return [_opened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    opened = {name: _opened(item) for name, item in schema.items() if name != "enum"}
    return opened | {"type": "string", "examples": schema["enum"]} if "enum" in schema else opened


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema, its references replaced: it then means the same in every dialect and inside AsyncAPI."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        rest = {name: item for name, item in schema.items() if name != "$ref"}
        return {**_inlined(definitions[schema["$ref"]], definitions), **rest}
    return {name: _inlined(item, definitions) for name, item in schema.items()}
