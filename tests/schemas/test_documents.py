"""The published documents are those that the code makes, and are what they claim to be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from schemas import bond_records, generate, json_schemas
from schemas.asyncapi import asyncapi_document
from schemas.bond_records import (
    AttributionStatus,
    ConversionKind,
    Match,
    SegmentReason,
    TriggerStatus,
    trigger_id,
)
from schemas.dead_letter import dead_letter_headers
from schemas.example_files import output_examples
from schemas.rejection import Reason
from schemas.tier_change import EVENT_TYPES, decode, headers
from schemas.times import parse_rfc3339

DOCUMENT = asyncapi_document()


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from walk(child)


def resolve(reference: str) -> Any:
    assert reference.startswith("#/")
    node: Any = DOCUMENT
    for part in reference[2:].split("/"):
        node = node[part]
    return node


def test_the_files_are_those_that_the_code_makes() -> None:
    written = {path.name: path.read_text("utf-8") for path in generate.FOLDER.glob("*.json")}
    assert written == generate.documents(), "run: python -m schemas.generate"


def test_generating_writes_every_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(generate, "FOLDER", tmp_path / "new")
    generate.main()
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(generate.documents())
    assert len(capsys.readouterr().out.splitlines()) == 12


@pytest.mark.parametrize("name", json_schemas.all_schemas())
def test_every_schema_is_a_json_schema(name: str) -> None:
    document = json.loads(generate.documents()[f"{name}.schema.json"])
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(document)


def test_the_schema_of_dead_letter_headers_takes_a_dead_letters_headers() -> None:
    made = dead_letter_headers([("trace", b"1")], Reason.TOO_LATE, "x: y", "loyalty.purchases", 0, 0, -1)
    texts = {name: (value or b"").decode() for name, value in made}
    jsonschema.Draft202012Validator(json_schemas.dead_letter_headers_schema()).validate(texts)


def test_the_asyncapi_document_has_what_version_3_requires() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert set(operation["channel"]) == {"$ref"}
    for channel in DOCUMENT["channels"].values():
        assert channel["address"].startswith("loyalty.")
        assert channel["bindings"]["kafka"]["topic"] == channel["address"]
        assert channel["messages"]


def test_every_reference_resolves() -> None:
    references = [node["$ref"] for node in walk(DOCUMENT) if "$ref" in node]
    assert len(references) > 20
    for reference in references:
        assert resolve(reference)


def test_every_operation_sends_or_receives_all_messages_of_its_channel() -> None:
    channels = []
    for operation in DOCUMENT["operations"].values():
        path = operation["channel"]["$ref"]
        channels.append(path.removeprefix("#/channels/"))
        listed = [message["$ref"] for message in operation["messages"]]
        assert listed == [f"{path}/messages/{name}" for name in resolve(path)["messages"]]
    assert channels == list(DOCUMENT["channels"])


def test_every_topic_of_the_contract_and_of_bonds_is_a_channel() -> None:
    assert {channel["address"].removeprefix("loyalty.") for channel in DOCUMENT["channels"].values()} == {
        *("purchases", "touchpoints", "customer-commands"),
        *("tier-changes", "customer-tiers", "dead-letters"),
        *("segment-changes", "nurturing-triggers", "attributions"),
    }


def test_every_example_keeps_its_messages_schema() -> None:
    shown = 0
    for message in DOCUMENT["components"]["messages"].values():
        for example in message.get("examples", ()):
            jsonschema.Draft202012Validator(resolve(message["payload"]["$ref"])).validate(example["payload"])
            shown += 1
    assert shown == 24


@pytest.mark.parametrize("message", ["tierChange", "tierAtRisk", "tierRetained"])
def test_the_schema_of_a_tier_records_headers_takes_them(message: str) -> None:
    (example,) = DOCUMENT["components"]["messages"][message]["examples"]
    made = headers(decode(json.dumps(example["payload"]).encode()))
    schema = resolve(DOCUMENT["components"]["messages"][message]["headers"]["$ref"])
    jsonschema.Draft202012Validator(schema).validate({name: value.decode() for name, value in made})
    assert [name for name, _ in made] == schema["required"]


@pytest.mark.parametrize("kind", bond_records.EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_the_schema_of_a_bond_records_headers_takes_them(kind: type[bond_records.BondEvent]) -> None:
    name = bond_records.EVENT_TYPES[kind]
    for example in (example for example in output_examples() if example.ce_type == name):
        made = bond_records.headers(bond_records.decode(kind, json.dumps(example.value).encode()))
        message = resolve(f"#/components/messages/{camel(example.schema)}")
        schema = resolve(message["headers"]["$ref"])
        jsonschema.Draft202012Validator(schema).validate({name: value.decode() for name, value in made})
        assert [name for name, _ in made] == schema["required"]


def camel(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(part.capitalize() for part in rest)


def test_the_bodies_shown_in_the_event_reference_are_real(decoder: Any, bonded: Any, record: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text("utf-8")
    purchase, touchpoint, triggered, override, *told = (
        block.encode() for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    )
    assert decoder.purchase(record(purchase)).amount == 1240
    assert decoder.touchpoint(record(touchpoint)).channel == "email"
    sent_back = bonded.touchpoint(record(triggered, timestamp=parse_rfc3339("2017-05-01T09:00:09Z")))
    assert sent_back.trigger_id == trigger_id("grocery", "900", "come-back", 1, 1)
    assert decoder.command(record(override)).tier == "gold"
    # They are the examples, word for word.
    examples = {example.name: example.value for example in output_examples()}
    names = (
        "tier-change",
        "tier-at-risk",
        "tier-retained",
        "segment-change",
        "nurturing-trigger",
        "attribution",
    )
    assert [json.loads(body) for body in told] == [examples[name] for name in names]


def test_the_event_reference_names_every_type_of_record() -> None:
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text("utf-8")
    types = [*EVENT_TYPES.values(), *bond_records.EVENT_TYPES.values()]
    assert [name for name in types if f"`{name}`" not in text] == []


def test_the_event_reference_names_every_value_there_is_of_bonds() -> None:
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text("utf-8")
    text = text[text.index("## Segment changes") :]
    kinds = (SegmentReason, TriggerStatus, AttributionStatus, ConversionKind, Match)
    assert [value for kind in kinds for value in get_args(kind) if f"`{value}`" not in text] == []


def test_the_event_reference_names_every_reason_field_and_header() -> None:
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text("utf-8")
    schemas = json_schemas.all_schemas()
    names = [name for schema in schemas.values() for name in schema["properties"]]
    assert [name for name in [*names, *Reason] if f"`{name}`" not in text] == []
