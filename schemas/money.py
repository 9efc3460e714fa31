"""Money as text and as whole minor units (cents, yen): ISO 4217's decimals, and exact conversion."""

from __future__ import annotations

import re
from decimal import Decimal

# ISO 4217, list one, of 2026-01-01: the active codes, by how many decimals their minor unit has. Codes that
# have no minor unit (gold, special drawing rights, testing) are no money to earn points with, and are left
# out.
_CODES = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: """
        AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE
        CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD
        HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK
        MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD
        RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH
        USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG
    """,
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

MINOR_UNITS: dict[str, int] = {code: decimals for decimals, codes in _CODES.items() for code in codes.split()}
"""How many decimals each active ISO 4217 currency has."""

POWERS = (1, 10, 100, 1_000, 10_000)
"""Minor units in one whole unit, by the currency's decimals."""

AMOUNT_PATTERN = r"(0|[1-9][0-9]{0,12})(\.[0-9]+)?"
"""The contract's text of an amount: at most 13 digits before the point, no sign, no exponent."""

_AMOUNT = re.compile(AMOUNT_PATTERN)


def parse_minor(text: str, decimals: int) -> int:
    """The minor units of an amount's text: ``("12.5", 2)`` is 1250.

    Raises ``ValueError`` where the text is not the contract's form or has more than ``decimals`` decimals;
    zeros count like any other digit.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError("expected digits, at most 13 before the point, without sign or exponent")
    whole, fraction = match.group(1), (match.group(2) or ".")[1:]
    if len(fraction) > decimals:
        raise ValueError(f"expected at most {decimals} decimals" if decimals else "expected no decimals")
    return int(whole + fraction.ljust(decimals, "0"))


def format_minor(amount: int, decimals: int) -> str:
    """Minor units as text with exactly ``decimals`` decimals: ``(51240, 2)`` is ``512.40``."""
    sign = "-" if amount < 0 else ""
    digits = str(abs(amount)).rjust(decimals + 1, "0")
    if not decimals:
        return sign + digits
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"


def convert_minor(amount: int, decimals: int, rate: Decimal, to_decimals: int) -> int:
    """Minor units of one currency in another's, half to even; ``rate`` is one whole unit's price in that."""
    numerator, denominator = rate.as_integer_ratio()
    numerator *= amount * POWERS[to_decimals]
    denominator *= POWERS[decimals]
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2):
        quotient += 1
    return quotient
