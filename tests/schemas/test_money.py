"""ISO 4217, amounts as text against Decimal, and conversion against Decimal's own rounding."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

import iso4217
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.money import MINOR_UNITS, convert_minor, format_minor, parse_minor


def test_the_table_is_iso_4217s() -> None:
    official = {entry.code: entry.exponent for entry in iso4217.Currency if entry.exponent is not None}
    assert official == MINOR_UNITS


@given(st.integers(0, 10**17), st.integers(0, 4))
def test_minor_units_survive_being_written_and_read(amount: int, decimals: int) -> None:
    text = format_minor(amount, decimals)
    assert Decimal(text).scaleb(decimals) == amount
    assert -Decimal(text).as_tuple().exponent == decimals  # type: ignore[operator]
    if amount < 10 ** (13 + decimals):
        assert parse_minor(text, decimals) == amount


@given(st.from_regex(r"\A(0|[1-9][0-9]{0,12})(\.[0-9]{1,4})?\Z"), st.integers(0, 4))
def test_a_text_means_what_decimal_says_or_has_too_many_decimals(text: str, decimals: int) -> None:
    if len(text.partition(".")[2]) > decimals:
        with pytest.raises(ValueError, match="decimals"):
            parse_minor(text, decimals)
    else:
        assert parse_minor(text, decimals) == Decimal(text).scaleb(decimals)


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e2", "01", "1.", ".5", "1,5", " 1", "1\n", "NaN", "١", "1_0", "1" * 14]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_minor(text, 2)


def test_amounts_are_written_with_exactly_the_currencys_decimals() -> None:
    assert [format_minor(5, d) for d in (0, 2, 3)] == ["5", "0.05", "0.005"]
    assert format_minor(51_240, 2) == "512.40"
    assert format_minor(-5, 2) == "-0.05"


@given(
    st.integers(0, 10**17),
    st.sampled_from([0, 2, 3, 4]),
    st.decimals(min_value="0.000000000001", max_value="999999999", places=12),
    st.sampled_from([0, 2, 3, 4]),
)
def test_conversion_rounds_half_to_even_exactly(amount: int, decimals: int, rate: Decimal, to: int) -> None:
    with localcontext(Context(prec=100)):
        exact = Decimal(amount).scaleb(-decimals) * rate
        expected = int(exact.scaleb(to).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
    assert convert_minor(amount, decimals, rate, to) == expected


@pytest.mark.parametrize(("amount", "converted"), [(50, 0), (150, 2), (250, 2), (251, 3), (350, 4)])
def test_halves_go_to_the_even_side(amount: int, converted: int) -> None:
    assert convert_minor(amount, 2, Decimal("0.01"), 2) == converted
