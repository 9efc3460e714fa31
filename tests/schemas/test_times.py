"""RFC 3339 against a slow parser that shares nothing with the fast one; durations."""

from __future__ import annotations

from datetime import date
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.times import format_ms, parse_duration, parse_rfc3339

LEAP_SECONDS = {(2016, 12, 31), (2015, 6, 30), (1972, 6, 30)}


def slow_rfc3339(text: str) -> int:
    """Character by character, as RFC 3339's grammar says, in exact fractions; known leap seconds only."""
    rest = text

    def take(characters: str) -> str:
        nonlocal rest
        if not rest or rest[0] not in characters:
            raise ValueError(text)
        taken, rest = rest[0], rest[1:]
        return taken

    def number(digits: int) -> int:
        return int("".join(take("0123456789") for _ in range(digits)))

    year, _, month, _, day = number(4), take("-"), number(2), take("-"), number(2)
    take("Tt")
    hour, _, minute, _, second = number(2), take(":"), number(2), take(":"), number(2)
    fraction = Fraction(0)
    if rest.startswith("."):
        take(".")
        digits = take("0123456789")
        while rest and rest[0] in "0123456789":
            digits += take("0123456789")
        fraction = Fraction(int(digits), 10 ** len(digits))
    offset = 0
    sign = take("Zz+-")
    if sign in "+-":
        hours, _, minutes = number(2), take(":"), number(2)
        if hours > 23 or minutes > 59:
            raise ValueError(text)
        offset = (hours * 60 + minutes) * 60 * (1 if sign == "+" else -1)
    if rest or hour > 23 or minute > 59 or second > 60:
        raise ValueError(text)
    leap = second == 60
    seconds = (date(year, month, day) - date(1970, 1, 1)).days * 86_400
    seconds += hour * 3600 + minute * 60 + second - leap - offset
    if leap:
        days, in_day = divmod(seconds, 86_400)
        known = {(date(*day_of) - date(1970, 1, 1)).days for day_of in LEAP_SECONDS}
        if in_day != 86_399 or days not in known:
            raise ValueError(text)
    exact = (Fraction(seconds + leap) + fraction) * 1000
    return exact.numerator // exact.denominator


def two_digits(most: int) -> st.SearchStrategy[str]:
    # Now and then more than there may be.
    return st.one_of(st.integers(0, most), st.integers(0, 99)).map(lambda n: f"{n:02d}")


times = st.builds(
    lambda y, mo, d, t, h, mi, s, f, o: f"{y:04d}-{mo}-{d}{t}{h}:{mi}:{s}{f}{o}",
    st.one_of(st.integers(1965, 2030), st.integers(0, 9999)),
    st.integers(1, 12).map(lambda n: f"{n:02d}"),
    two_digits(31),
    st.sampled_from("TTTt "),
    two_digits(23),
    two_digits(59),
    st.integers(0, 59).map(lambda n: f"{n:02d}"),
    st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=30).map(lambda d: f".{d}")),
    st.one_of(
        st.sampled_from(["Z", "z", "", "+00:00", "-00:00", "+0900", "Z\n"]),
        st.builds(lambda s, h, m: f"{s}{h}:{m}", st.sampled_from("+-"), two_digits(23), two_digits(59)),
    ),
)


def outcome(parse: object, text: str) -> int | None:
    try:
        return parse(text)  # type: ignore[operator, no-any-return]
    except ValueError:
        return None


@settings(deadline=None, max_examples=1000)
@given(times)
@example("2016-12-31T23:59:60Z")
@example("2017-01-01T08:59:60.999+09:00")
@example("2016-12-31T15:59:60-08:00")
@example("2016-12-31T23:59:60+00:01")
@example("2016-12-30T23:59:60Z")
@example("2015-12-31T23:59:60Z")
@example("1970-01-01T00:00:00.0009Z")
@example("1969-12-31T23:59:59.9999Z")
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59.999-23:59")
@example("0000-01-01T00:00:00Z")
def test_the_fast_parser_agrees_with_a_slow_one(text: str) -> None:
    assert outcome(parse_rfc3339, text) == outcome(slow_rfc3339, text)


@settings(deadline=None, max_examples=500)
@given(times, st.data())
def test_a_time_with_one_character_changed_is_read_alike_by_both(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    character = data.draw(st.sampled_from("0129:.-+TZzt \n,/٣²"))
    changed = text[:at] + character + text[at + data.draw(st.integers(0, 1)) :]
    if ":60" not in changed:  # the slow one knows few leap seconds
        assert outcome(parse_rfc3339, changed) == outcome(slow_rfc3339, changed)


@given(st.integers(0, 253_402_300_799_999))
def test_a_formatted_time_parses_to_itself(ms: int) -> None:
    assert parse_rfc3339(format_ms(ms)) == ms


def test_a_time_is_formatted_as_the_contract_prints_it() -> None:
    assert format_ms(1_491_134_006_000) == "2017-04-02T11:53:26.000Z"
    assert format_ms(-1) == "1969-12-31T23:59:59.999Z"


@pytest.mark.parametrize("ms", [10**15, -(10**15), 10**30])
def test_a_time_outside_the_calendar_is_not_formatted(ms: int) -> None:
    with pytest.raises(ValueError, match="years 0001 to 9999"):
        format_ms(ms)


def test_there_are_27_leap_seconds_up_to_2017() -> None:
    years = range(1970, 2017)
    ends = [f"{year}-{day}T23:59:60Z" for year in years for day in ("06-30", "12-31", "03-31", "09-30")]
    assert sum(outcome(parse_rfc3339, end) is not None for end in ends) == 27


def test_a_leap_second_that_may_still_come_is_taken_at_its_word_on_the_two_usual_days_only() -> None:
    assert parse_rfc3339("2028-06-30T23:59:60Z") == parse_rfc3339("2028-07-01T00:00:00Z")
    for text in ("2028-03-31T23:59:60Z", "2028-06-30T23:58:60Z", "9999-12-31T23:59:60-23:59"):
        with pytest.raises(ValueError, match="leap second"):
            parse_rfc3339(text)


def test_long_fractions_are_cut_exactly_and_not_kept_in_memory() -> None:
    from schemas import times

    before = len(times._rests)
    assert parse_rfc3339("2017-04-02T11:53:26.9999" + "9" * 60_000 + "Z") == 1_491_134_006_999
    assert len(times._rests) == before


@pytest.mark.parametrize(
    ("text", "ms"),
    [("365d", 31_536_000_000), ("24h", 86_400_000), ("5m", 300_000), ("0s", 0), ("500ms", 500), ("1s", 1000)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize(
    "text",
    ["", "d", "5", "5 d", "-5d", "+5d", "1.5h", "05d", "5D", "1d12h", "5d\n", "٥d", "1w", "9" * 10 + "d"],
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)
