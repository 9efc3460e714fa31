"""The page about the program file: every block is run, every key has a row and an example, and no story
contradicts itself. That the stories are true is tested where customers are folded."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from typing import Any, get_args

import pytest

from schemas.example_files import PROGRAM_FILE
from schemas.program import PROGRAM_KEYS, SCORE_KEYS, SECTIONS, Program, parse_program
from schemas.program_bond_sections import (
    ATTACHMENT_KEYS,
    ATTRIBUTION_KEYS,
    BOND_SECTIONS,
    HOLDOUT_KEYS,
    POINTS_KEYS,
    SEGMENT_KEYS,
    SUBSCRIPTIONS_KEYS,
)
from schemas.program_bonds import Goal, When
from schemas.program_contact_policy import CAP_KEYS, CONTACT_POLICY_KEYS
from schemas.program_scenarios import SCENARIO_KEYS, STEP_KEYS
from schemas.program_tiers import TIER_KEYS
from schemas.tier_change import ChangeReason
from tests.schemas.bond_stories import HEADER as BOND_HEADER
from tests.schemas.bond_stories import BondStory, bond_stories
from tests.schemas.stories import HEADER, PAGE, START, Arrival, Row, Story, blocks, is_whole, stories

TEXT = PROGRAM_FILE.read_text()
BLOCKS = blocks()
STORIES = stories()
KEYS = {"program": PROGRAM_KEYS, "tiers": TIER_KEYS, "scores": SCORE_KEYS}
BOND_KEYS = {
    "attachment": (*ATTACHMENT_KEYS, *POINTS_KEYS),
    "segments": SEGMENT_KEYS,
    "contact_policy": (*CONTACT_POLICY_KEYS, *CAP_KEYS),
    "scenarios": (*SCENARIO_KEYS, *STEP_KEYS),
    "holdout": HOLDOUT_KEYS,
    "attribution": ATTRIBUTION_KEYS,
    "subscriptions": SUBSCRIPTIONS_KEYS,
}
BOND_STORIES = bond_stories()


def section_of(heading: str) -> str:
    """The text of the page under a heading of the second level."""
    (text,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    return str(text)


def given() -> dict[str, set[str]]:
    """The keys that stand in some block, by section."""
    found: dict[str, set[str]] = {section: set() for section in (*SECTIONS, *BOND_SECTIONS)}
    for block in BLOCKS:
        for section, content in tomllib.loads(block).items():
            found[section].update(keys_of(content))
    return found


def keys_of(content: Any) -> set[str]:
    """The keys of a table, or of some, and of the tables in them."""
    found: set[str] = set()
    tables: list[Any] = content if isinstance(content, list) else [content]
    for table in tables:
        if isinstance(table, dict):
            found.update(*(({key} | keys_of(value)) for key, value in table.items()))
    return found


def test_no_block_or_table_of_the_page_is_overlooked() -> None:
    page = PAGE.read_text()
    assert page.count("```toml") == len(BLOCKS) == page.count("```") / 2
    assert page.count(HEADER) == page.count("what arrives |") == len(STORIES) == 8
    assert page.count(BOND_HEADER) == page.count("| arrives |") == len(BOND_STORIES) == 7


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_block_of_the_page_is_a_program_or_a_part_of_one(block: str) -> None:
    first = {
        "program": TEXT[: TEXT.index("[rates]")],
        "tiers": TEXT[TEXT.index("[[tiers]]") : TEXT.index("[scores]")],
        "scores": TEXT[TEXT.index("[scores]") :],
    }
    if is_whole(block):
        parse_program(block)
    elif tomllib.loads(block).keys() <= set(BOND_SECTIONS):
        # Added to a program with a benefit, as the stories of bonds are.
        silver = TEXT.replace('name = "silver"', 'name = "silver"\nbenefits = ["free coffee"]')
        assert parse_program(silver + block).bonds is not None
    else:
        sections = tomllib.loads(block)
        parse_program(block + "\n".join(text for name, text in first.items() if name not in sections))


def test_the_pages_first_block_is_the_example_program() -> None:
    assert BLOCKS[0] == TEXT


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_a_section_stands_in_a_block_and_in_a_row(section: str) -> None:
    about = section_of("`[[tiers]]`" if section == "tiers" else f"`[{section}]`")
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", about, re.MULTILINE))
    keys = set(KEYS.get(section, ()))
    assert rows == keys
    assert given()[section] >= (keys or {"EUR"})


@pytest.mark.parametrize("section", BOND_SECTIONS)
def test_every_key_of_bonds_stands_in_a_block_and_in_a_row(section: str) -> None:
    (about,) = re.findall(
        rf"^### `\[+{section}\]+`\n(.*?)(?=^##|\Z)", section_of("Bonds"), re.MULTILINE | re.DOTALL
    )
    cells = re.findall(r"^\| (`.*?) \|", about, re.MULTILINE)
    rows = {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}
    conditions = set(get_args(When)) if section == "scenarios" else set()
    assert rows == set(BOND_KEYS[section]) | conditions
    assert given()[section] >= set(BOND_KEYS[section])


@pytest.mark.parametrize("story", BOND_STORIES, ids=lambda story: story.name)
def test_a_story_of_bonds_is_told_in_order_of_segments_and_scenarios_that_there_are(story: BondStory) -> None:
    bonds = story.program.bonds
    assert bonds is not None
    assert story.rows[0].at >= START
    assert all(earlier.at < later.at for earlier, later in pairwise(story.rows))
    assert {row.segment for row in story.rows} <= {None, *(segment.name for segment in bonds.segments)}
    before = None
    for row in story.rows:
        moves = [told for told in row.told if told.startswith("segment: ")]
        expected = [] if row.segment == before else [f"segment: {before or 'none'} → {row.segment}"]
        assert [told.partition(" (")[0] for told in moves] == expected
        before = row.segment


def test_the_page_tells_of_every_bond_section_by_a_story() -> None:
    assert [re.sub(r"[`\[\]]", "", story.name) for story in BOND_STORIES] == list(BOND_SECTIONS)


def test_every_choice_of_a_key_stands_in_a_block() -> None:
    text = "\n".join(BLOCKS)
    for when in get_args(When):
        assert f'when = "{when}"' in text
    for goal in get_args(Goal):
        assert f'goal = "{goal}"' in text
    for line in ('downgrade = "requalify"', 'downgrade = "one_down"', 'downgrade = "base"'):
        assert line in text
    for line in ('refund_policy = "reverse"', 'refund_policy = "grace"'):
        assert line in text


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_story_is_told_in_order_and_of_tiers_and_reasons_that_there_are(story: Story) -> None:
    programs = [story.program, *([story.new_program] if story.new_program else [])]
    names = {tier.name for program in programs for tier in program.tiers}
    assert story.rows[0].at == START
    assert all(earlier.at < later.at for earlier, later in pairwise(story.rows))
    assert {row.tier for row in story.rows} <= names
    assert {told.reason for row in story.rows for told in row.published} <= set(get_args(ChangeReason))
    for row in story.rows:
        if row.arrival is None:
            assert {told.reason for told in row.published} <= {
                "window_expiry",
                "inactivity",
                "program_change",
            }
        elif row.arrival.kind != "program":
            assert {told.reason for told in row.published} <= {row.arrival.kind}


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_what_a_story_publishes_is_the_difference_in_what_it_shows(story: Story) -> None:
    program = story.program
    before = Row(START, None, program.tiers[0].name, None, ())
    for row in story.rows:
        if row.arrival == Arrival("program"):
            assert story.new_program is not None
            program = story.new_program
        assert [told.kind for told in row.published] == difference(before, row)
        for told in row.published:
            if told.kind == "changed":
                assert (told.previous_tier, told.tier) == (before.tier, row.tier)
            assert told.at_risk_until == (row.at_risk_until if told.kind == "at-risk" else None)
            assert told.benefits in {None, benefits_of(program, row.tier)}
        before = row


def difference(before: Row, after: Row) -> list[str]:
    """The kinds of records between two rows, by the table in docs/tiers.md, "Shown"."""
    kinds = ["changed"] if before.tier != after.tier else []
    if after.at_risk_until is not None and (kinds or after.at_risk_until != before.at_risk_until):
        kinds.append("at-risk")
    if not kinds and before.at_risk_until is not None and after.at_risk_until is None:
        kinds.append("retained")
    return kinds


def benefits_of(program: Program, name: str) -> tuple[str, ...]:
    (tier,) = (tier for tier in program.tiers if tier.name == name)
    return tier.benefits


def test_every_new_key_has_a_story_with_another_value_than_its_default() -> None:
    told = [story.new_program or story.program for story in STORIES]
    plain = parse_program(TEXT).tiers[0]
    for key in TIER_KEYS[4:]:
        assert any(getattr(tier, key) != getattr(plain, key) for program in told for tier in program.tiers), (
            key
        )
    assert any(program.protect_until is not None for program in told)
