"""The program file: what it means, what its version ignores, and that every mistake names its key."""

from __future__ import annotations

import contextlib
import re
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.example_files import PROGRAM_FILE
from schemas.program import Program, ProgramError, Scores, Tier, load_program, parse_program
from schemas.times import DAY, HOUR, MINUTE

TEXT = PROGRAM_FILE.read_text()
GROCERY = Path(__file__).parents[2] / "examples" / "grocery.toml"


def changed(before: str, after: str) -> str:
    assert TEXT.count(before) == 1, before
    return TEXT.replace(before, after)


def test_the_contracts_program_means_what_the_contract_says(program: Program) -> None:
    assert program == Program(
        id="grocery",
        currency="USD",
        decimals=2,
        timezone="UTC",
        window=365 * DAY,
        contact_days=30,
        ledger=455 * DAY,
        allowed_lateness=0,
        max_future=5 * MINUTE,
        publish_from=None,
        rates={"EUR": Decimal("1.08")},
        tiers=(Tier("member"), Tier("silver", 20_000, 5), Tier("gold", 80_000, 15, 90 * DAY)),
        scores=Scores(
            recency=(7 * DAY, 30 * DAY, 90 * DAY, 180 * DAY),
            frequency=(2, 5, 10, 20),
            monetary=(5_000, 20_000, 50_000, 150_000),
        ),
        version=program.version,
        text=TEXT,
    )
    assert re.fullmatch("[0-9a-f]{16}", program.version)


def test_what_is_left_out_has_the_documented_defaults() -> None:
    text = TEXT
    for key in ("timezone", "contact_window", "ledger", "allowed_lateness", "max_future"):
        text = re.sub(rf"^{key} = .*\n", "", text, flags=re.MULTILINE)
    assert msgspec.structs.replace(parse_program(text), text=TEXT) == parse_program(TEXT)
    assert parse_program(text.replace('EUR = "1.08"', "")).rates == {}
    assert parse_program(TEXT[: TEXT.index("[rates]")] + TEXT[TEXT.index("[[tiers]]") :]).rates == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# lowest first; the first has no thresholds", "# another comment"),
        ('id = "grocery"\ncurrency = "USD"', 'currency = "USD"\n\nid = "grocery"'),
        ('window = "365d"\ncontact', 'window = "8760h"\ncontact'),
        ('"800.00"', '"800"'),
        ('"1.08"', '"1.080"'),
        ('monetary = ["50", ', 'monetary = ["50.00", '),
        ("[7, 30, 90, 180]", "[ 7,\n 30, 90, 180, ]"),
    ],
)
def test_another_writing_of_the_same_program_has_the_same_version(before: str, after: str) -> None:
    assert parse_program(changed(before, after)).version == parse_program(TEXT).version


CHANGES = [
    ('"grocery"', '"grocer"'),
    ('currency = "USD"', 'currency = "CAD"'),
    ('timezone = "UTC"', 'timezone = "Europe/Paris"'),
    ('window = "365d"\ncontact', 'window = "364d"\ncontact'),
    ('"30d"', '"31d"'),
    ('"455d"', '"456d"'),
    ('"0s"', '"1ms"'),
    ('"5m"', '"6m"'),
    ("# publish_from", "publish_from"),
    ("# publish_from", "protect_until"),
    ('"1.08"', '"1.09"'),
    ('EUR = "1.08"', 'EUR = "1.08"\nJPY = "0.01"'),
    ('"silver"', '"steel"'),
    ('"200.00"', '"200.01"'),
    ("min_frequency = 5", "min_frequency = 6"),
    ('max_recency = "90d"', 'max_recency = "91d"'),
    ('max_recency = "90d"', ""),
    ("[7, 30", "[8, 30"),
    ("[2, 5,", "[3, 5,"),
    ('["50"', '["51"'),
]


def test_every_other_change_changes_the_version_each_to_another() -> None:
    versions = {parse_program(changed(*change)).version for change in CHANGES}
    assert len(versions | {parse_program(TEXT).version}) == len(CHANGES) + 1


def test_the_version_is_the_same_for_ever(program: Program) -> None:
    # Stores are bound to it: a change here makes every existing store refuse its own program.
    assert program.version == "7da7f390ffe09d45"
    assert load_program(GROCERY).version == "f224faec2812d01b"


def test_publish_from_is_read_with_its_offset_and_cut_to_the_millisecond() -> None:
    text = changed("# publish_from = 2026-12-01T00:00:00Z", "publish_from = 1970-01-01T01:00:00.0019+00:30")
    assert parse_program(text).publish_from == 30 * MINUTE + 1
    assert parse_program(changed("# publish_from", "publish_from")).publish_from == 1_796_083_200_000


def test_protect_until_is_an_instant_like_publish_from() -> None:
    assert parse_program(TEXT).protect_until is None
    text = changed("# publish_from = 2026-12-01T00:00:00Z", "protect_until = 1970-01-01T01:00:00.0019+00:30")
    assert parse_program(text).protect_until == 30 * MINUTE + 1
    assert parse_program(text).publish_from is None


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n"), TEXT + "# 絆\n"])
def test_a_programs_text_is_the_file_and_gives_the_same_program(text: str) -> None:
    program = parse_program(text.encode())
    assert program.text == text
    assert parse_program(program.text) == program
    assert program.version == parse_program(TEXT).version


def test_a_currencys_decimals_count_in_every_amount() -> None:
    text = changed('currency = "USD"', 'currency = "KWD"')
    assert parse_program(text).tiers[1].min_monetary == 200_000
    with pytest.raises(ProgramError, match=r"^tiers\[1\]\.min_monetary: .*0 decimals"):
        parse_program(changed('currency = "USD"', 'currency = "JPY"'))


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("[program]", "[programme]", "programme"),
        ("[program]", "top = 1\n[program]", "top"),
        ("[program]", "[program]\nwindows = 1", "program.windows"),
        ("[program]", '[program]\n"a b" = 1', 'program."a b"'),
        ('id = "grocery"', "", "program.id"),
        ('id = "grocery"', 'id = "gro/cery"', "program.id"),
        ('id = "grocery"', 'id = ""', "program.id"),
        ('id = "grocery"', f'id = "{"x" * 65}"', "program.id"),
        ('id = "grocery"', "id = 5", "program.id"),
        ('currency = "USD"', "", "program.currency"),
        ('currency = "USD"', 'currency = "usd"', "program.currency"),
        ('currency = "USD"', 'currency = "XAU"', "program.currency"),
        ('timezone = "UTC"', 'timezone = "Mars/Base"', "program.timezone"),
        ('timezone = "UTC"', 'timezone = "Europe"', "program.timezone"),
        ('timezone = "UTC"', 'timezone = "../UTC"', "program.timezone"),
        ('timezone = "UTC"', 'timezone = "/etc/localtime"', "program.timezone"),
        ('timezone = "UTC"', 'timezone = ""', "program.timezone"),
        ('timezone = "UTC"', 'timezone = "U\\u0000"', "program.timezone"),
        ('window = "365d"\ncontact', "contact", "program.window"),
        ('window = "365d"\ncontact', 'window = "0d"\ncontact', "program.window"),
        ('window = "365d"\ncontact', 'window = "1y"\ncontact', "program.window"),
        ('window = "365d"\ncontact', "window = 365\ncontact", "program.window"),
        ('contact_window = "30d"', 'contact_window = "36h"', "program.contact_window"),
        ('contact_window = "30d"', 'contact_window = "0d"', "program.contact_window"),
        ('"455d"', '"364d"', "program.ledger"),
        ('"0s"', '"-1s"', "program.allowed_lateness"),
        ('"5m"', "300", "program.max_future"),
        ("# publish_from", "publish_from = 2026-12-01 #", "program.publish_from"),
        ("# publish_from", "publish_from = 2026-12-01T00:00:00 #", "program.publish_from"),
        ("# publish_from", 'publish_from = "2026-12-01T00:00:00Z" #', "program.publish_from"),
        ("# publish_from", "publish_from = 9999-12-31T23:59:59-01:00 #", "program.publish_from"),
        ("# publish_from", "publish_from = 0001-01-01T00:00:00+01:00 #", "program.publish_from"),
        ("# publish_from", "protect_until = 2026-12-01 #", "program.protect_until"),
        ("# publish_from", "protect_until = 2026-12-01T00:00:00 #", "program.protect_until"),
        ("# publish_from", "protect_until = 12:00:00 #", "program.protect_until"),
        ("# publish_from", 'protect_until = "2026-12-01T00:00:00Z" #', "program.protect_until"),
        ("EUR =", "EURO =", "rates.EURO"),
        ("EUR =", "USD =", "rates.USD"),
        ("EUR =", "XXX =", "rates.XXX"),
        ('"1.08"', "1.08", "rates.EUR"),
        ('"1.08"', '"0.00"', "rates.EUR"),
        ('"1.08"', '"-1"', "rates.EUR"),
        ('"1.08"', '"1e3"', "rates.EUR"),
        ('"1.08"', '"NaN"', "rates.EUR"),
        ('"1.08"', '"1234567890"', "rates.EUR"),
        ('name = "silver"', 'name = "member"', "tiers[1].name"),
        ('name = "silver"', 'name = ""', "tiers[1].name"),
        ('name = "silver"', f'name = "{"x" * 65}"', "tiers[1].name"),
        ('name = "silver"', "", "tiers[1].name"),
        ('name = "silver"', 'name = "silver"\nmax_frequency = 1', "tiers[1].max_frequency"),
        ('name = "member"', 'name = "member"\nmin_frequency = 1', "tiers[0].min_frequency"),
        ('min_monetary = "200.00"\nmin_frequency = 5', "", "tiers[1]"),
        ('"200.00"', "200.00", "tiers[1].min_monetary"),
        ('"200.00"', '"200.001"', "tiers[1].min_monetary"),
        ('"200.00"', '"0.00"', "tiers[1].min_monetary"),
        ("min_frequency = 5", 'min_frequency = "5"', "tiers[1].min_frequency"),
        ("min_frequency = 5", "min_frequency = 0", "tiers[1].min_frequency"),
        ("min_frequency = 5", "min_frequency = true", "tiers[1].min_frequency"),
        ("min_frequency = 5", "min_frequency = 5.0", "tiers[1].min_frequency"),
        ("min_frequency = 15", "min_frequency = 4", "tiers[2].min_frequency"),
        ("min_frequency = 15", "", "tiers[2].min_frequency"),
        ('"800.00"', '"199.99"', "tiers[2].min_monetary"),
        ("min_frequency = 5", 'min_frequency = 5\nmax_recency = "89d"', "tiers[2].max_recency"),
        ('max_recency = "90d"', 'max_recency = "365d"', "tiers[2].max_recency"),
        ('max_recency = "90d"', 'max_recency = "0d"', "tiers[2].max_recency"),
        ("[7, 30, 90, 180]", "[7, 30, 90]", "scores.recency_days"),
        ("[7, 30, 90, 180]", "[7, 30, 30, 180]", "scores.recency_days"),
        ("[7, 30, 90, 180]", "[0, 30, 90, 180]", "scores.recency_days[0]"),
        ("[7, 30, 90, 180]", "7", "scores.recency_days"),
        ("[2, 5, 10, 20]", "[2, 5, 10, 20.5]", "scores.frequency[3]"),
        ('"500", "1500"]', '"1500", "500"]', "scores.monetary"),
        ('"500", "1500"]', '"500", 1500]', "scores.monetary[3]"),
        ("frequency = [2, 5, 10, 20]", "", "scores.frequency"),
        ("[scores]", "[score]", "score"),
        ("[scores]", "[scores]\nx = 1", "scores.x"),
    ],
)
def test_a_mistake_is_one_line_that_begins_with_its_key(before: str, after: str, key: str) -> None:
    text = changed(before, after)
    with pytest.raises(ProgramError) as caught:
        parse_program(text)
    message = str(caught.value)
    assert message.startswith(f"{key}: ")
    assert "\n" not in message
    assert "expected" in message or "allowed" in message


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", "program: missing"),
        ("program = 5", "program: expected a table"),
        ("[program", "file: expected TOML ("),
        (b"\xff", "file: expected UTF-8"),
        ("x = " + "1" * 5000, "file: expected TOML ("),
        (TEXT[: TEXT.index("[scores]")], "scores: missing"),
        (TEXT[: TEXT.index("[[tiers]]")] + TEXT[TEXT.index("[scores]") :], "tiers: missing"),
        (
            "tiers = []\n" + TEXT[: TEXT.index("[[tiers]]")] + TEXT[TEXT.index("[scores]") :],
            "tiers: expected one",
        ),
        (
            "tiers = [5]\n" + TEXT[: TEXT.index("[[tiers]]")] + TEXT[TEXT.index("[scores]") :],
            "tiers[0]: expected a",
        ),
    ],
)
def test_a_file_without_its_parts_is_an_error(text: str | bytes, start: str) -> None:
    with pytest.raises(ProgramError) as caught:
        parse_program(text)
    assert str(caught.value).startswith(start)


def test_a_file_that_cannot_be_read_or_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"nowhere\.toml: cannot be read"):
        load_program(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("[program]\nid = 5")
    with pytest.raises(ProgramError, match=r"bad\.toml: program\.id: expected"):
        load_program(tmp_path / "bad.toml")


@given(st.binary(max_size=100) | st.text(max_size=100) | st.integers(0, len(TEXT)).map(lambda n: TEXT[:n]))
def test_whatever_a_file_holds_is_a_program_or_a_program_error(content: str | bytes) -> None:
    with contextlib.suppress(ProgramError):
        assert isinstance(parse_program(content), Program)


def test_hours_and_minutes_are_exact() -> None:
    assert parse_program(changed('"0s"', '"90m"')).allowed_lateness == HOUR + 30 * MINUTE
