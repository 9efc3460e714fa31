"""The AsyncAPI 3.0.0 document: topics, who sends and receives what, with examples that the tests replay."""

from __future__ import annotations

import json
from typing import Any

from schemas.bond_records import EVENT_TYPES as BOND_EVENT_TYPES
from schemas.bond_records import AttributionEvent, SegmentEvent, TriggerEvent
from schemas.example_files import output_examples, valid_examples
from schemas.json_schemas import all_schemas
from schemas.tier_change import EVENT_TYPES

Node = dict[str, Any]

_KAFKA = "0.5.0"
_PREFIX = "loyalty."

_CHANNELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "purchases": ("Purchases and refunds, from the shops.", ("purchase", "refund")),
    "touchpoints": ("Contacts with customers, from the shops.", ("touchpoint",)),
    "customer-commands": ("Tiers that are decided by hand; erasures and merges come later.", ("override",)),
    "tier-changes": (
        "What happens to customers' tiers: a log, in order for each customer.",
        ("tierChange", "tierAtRisk", "tierRetained"),
    ),
    "customer-tiers": (
        "The newest record of each customer, compacted.",
        ("tierChange", "tierAtRisk", "tierRetained"),
    ),
    "segment-changes": (
        "Customers' segments: a log, in order for each customer. Written where the program keeps bonds.",
        ("segmentChange",),
    ),
    "nurturing-triggers": (
        "What is to be said to whom, what is not, and reserved contacts. Written where the program keeps bonds.",
        ("nurturingTrigger",),
    ),
    "attributions": (
        "Which online touch brought whom to which shop. Written where the program keeps bonds.",
        ("attribution",),
    ),
    "dead-letters": ("Records that could not be used: the original bytes, and why.", ("deadLetter",)),
}
_RECEIVED = ("purchases", "touchpoints", "customer-commands")
_SHOWN = {
    "purchase": ("purchase", "purchase-amount-as-number", "purchase-in-another-currency"),
    "refund": ("refund",),
    "touchpoint": (
        *("touchpoint", "touchpoint-inbound-without-action"),
        *("touchpoint-of-a-trigger", "touchpoint-that-cancels"),
    ),
    "override": ("override-floor", "override-pin", "override-clear"),
}


def asyncapi_document() -> Node:
    """The whole document, as JSON values, from the service's side: it receives inputs and sends outputs."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Kizuna",
            "version": "1.0.0",
            "description": (
                "Customers' loyalty tiers and bonds from a stream of purchases and touchpoints. Topics bear a prefix, "
                f'"{_PREFIX}" unless configured otherwise. Every key is the customer_id, in UTF-8, except '
                "that a dead letter keeps the key it had; partitions are Kafka's default, murmur2. What a "
                "schema cannot say stands in docs/events.md."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {_camel(name): _channel(name) for name in _CHANNELS},
        "operations": {_operation_name(name): _operation(name) for name in _CHANNELS},
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _channel(name: str) -> Node:
    about, messages = _CHANNELS[name]
    kafka: Node = {"topic": _PREFIX + name, "bindingVersion": _KAFKA}
    if name == "customer-tiers":
        kafka["topicConfiguration"] = {"cleanup.policy": ["compact"]}
    return {
        "address": _PREFIX + name,
        "description": about,
        "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages},
        "bindings": {"kafka": kafka},
    }


def _operation_name(name: str) -> str:
    channel = _camel(name)
    return ("receive" if name in _RECEIVED else "send") + channel[0].upper() + channel[1:]


def _operation(name: str) -> Node:
    channel = f"#/channels/{_camel(name)}"
    return {
        "action": "receive" if name in _RECEIVED else "send",
        "channel": {"$ref": channel},
        "summary": _CHANNELS[name][0],
        "messages": [{"$ref": f"{channel}/messages/{message}"} for message in _CHANNELS[name][1]],
    }


def _messages() -> Node:
    key = {"type": "string", "description": "customer_id"}
    return {
        "purchase": _message("Purchase", "purchase", key, headers="cloudEventHeaders"),
        "refund": _message("Refund", "refund", key, headers="cloudEventHeaders"),
        "touchpoint": _message("Touchpoint", "touchpoint", key, headers="cloudEventHeaders"),
        "override": _message("Override", "override", key, headers="cloudEventHeaders"),
        "tierChange": _message("Tier change", "tierChange", key, headers="tierChangeHeaders"),
        "tierAtRisk": _message("Tier at risk", "tierAtRisk", key, headers="tierAtRiskHeaders"),
        "tierRetained": _message("Tier retained", "tierRetained", key, headers="tierRetainedHeaders"),
        "segmentChange": _message("Segment change", "segmentChange", key, headers="segmentChangeHeaders"),
        "nurturingTrigger": _message(
            "Nurturing trigger", "nurturingTrigger", key, headers="nurturingTriggerHeaders"
        ),
        "attribution": _message("Attribution", "attribution", key, headers="attributionHeaders"),
        "deadLetter": {
            "name": "deadLetter",
            "title": "Dead letter",
            "contentType": "application/octet-stream",
            "headers": {"$ref": "#/components/schemas/deadLetterHeaders"},
            "payload": {"description": "The original bytes; null stays null."},
        },
    }


def _message(title: str, schema: str, key: Node, headers: str) -> Node:
    message: Node = {
        "name": schema,
        "title": title,
        "contentType": "application/json",
        "headers": {"$ref": f"#/components/schemas/{headers}"},
        "payload": {"$ref": f"#/components/schemas/{schema}"},
        "bindings": {"kafka": {"key": key, "bindingVersion": _KAFKA}},
    }
    if examples := _examples(schema):
        message["examples"] = examples
    return message


def _examples(schema: str) -> list[Node]:
    if outputs := [example for example in output_examples() if _camel(example.schema) == schema]:
        return [{"name": o.name, "summary": o.about, "payload": o.value} for o in outputs]
    return [
        {"name": example.name, "summary": example.about, "payload": json.loads(example.value)}
        for example in valid_examples()
        if example.name in _SHOWN.get(schema, ()) and example.value is not None
    ]


def _schemas() -> Node:
    schemas = {_camel(name): schema for name, schema in all_schemas().items()}
    text = {"type": "string"}
    schemas["cloudEventHeaders"] = {
        "description": "Optional: CloudEvents 1.0, binary mode. Nothing without ce_specversion.",
        "type": "object",
        "properties": {
            "ce_specversion": {"const": "1.0"},
            "ce_id": {**text, "minLength": 1, "maxLength": 128, "description": "Wins over event_id."},
            "ce_source": {**text, "maxLength": 128, "description": "Wins over source."},
        },
    }
    schemas["tierChangeHeaders"] = _output_headers(EVENT_TYPES["changed"])
    schemas["tierAtRiskHeaders"] = _output_headers(EVENT_TYPES["at-risk"])
    schemas["tierRetainedHeaders"] = _output_headers(EVENT_TYPES["retained"])
    schemas["segmentChangeHeaders"] = _output_headers(BOND_EVENT_TYPES[SegmentEvent])
    schemas["nurturingTriggerHeaders"] = _output_headers(BOND_EVENT_TYPES[TriggerEvent])
    schemas["attributionHeaders"] = _output_headers(BOND_EVENT_TYPES[AttributionEvent])
    return schemas


def _output_headers(event_type: str) -> Node:
    text = {"type": "string"}
    return {
        "description": "CloudEvents 1.0, binary mode. Further headers may follow.",
        "type": "object",
        "properties": {
            "ce_specversion": {"const": "1.0"},
            "ce_type": {"const": event_type},
            "ce_source": {**text, "description": "/loyalty/<program id>"},
            "ce_id": {**text, "description": "event_id"},
            "ce_subject": {**text, "description": "customer_id"},
            "ce_time": {**text, "format": "date-time", "description": "effective_at"},
            "content-type": {"const": "application/json"},
        },
        "required": [
            *("ce_specversion", "ce_type", "ce_source", "ce_id", "ce_subject", "ce_time", "content-type")
        ],
    }


def _camel(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(part.capitalize() for part in rest)
