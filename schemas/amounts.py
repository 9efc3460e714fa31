"""An event's amount: judged on its text in its own currency, then converted to the program's minor units."""

from __future__ import annotations

import json
import re

from schemas.fields import AMOUNT_EXPECTED, AMOUNT_NAME, CURRENCY, invalid
from schemas.money import AMOUNT_PATTERN, MINOR_UNITS, convert_minor, parse_minor
from schemas.program import Program
from schemas.rejection import Reason, RejectedError

_AMOUNT = re.compile(AMOUNT_PATTERN)
_CURRENCY = re.compile("[A-Z]{3}")
# Texts kept of the program's currency, and of each other one: some 10 MiB and 1 MiB at most.
_CACHED = 65_536
_CACHED_FOREIGN = 8_192


class Amounts:
    """Reads amounts for one program. Prices repeat: a bounded number of texts is kept with their value."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._seen: dict[str, dict[bytes, int]] = {code: {} for code in (program.currency, *program.rates)}

    def minor(self, raw: bytes, currency: str) -> int:
        """Minor units of the program's currency, converted half to even, from the JSON text of the amount.

        Raises ``RejectedError``: ``invalid_event`` where the amount is not the contract's form, has more
        decimals than its currency, or the currency is no code; else ``unsupported_currency`` where the
        program has no rate.
        """
        seen = self._seen.get(currency)
        if seen is None:
            raise self._unsupported(raw, currency)
        amount = seen.get(raw)
        if amount is None:
            amount = self._convert(raw, currency)
            if len(seen) >= (_CACHED if currency == self._program.currency else _CACHED_FOREIGN):
                seen.clear()
            seen[raw] = amount
        return amount

    def _convert(self, raw: bytes, currency: str) -> int:
        own = _parse(raw, MINOR_UNITS[currency])
        if currency == self._program.currency:
            return own
        rate = self._program.rates[currency]
        return convert_minor(own, MINOR_UNITS[currency], rate, self._program.decimals)

    def _unsupported(self, raw: bytes, currency: str) -> RejectedError:
        # What is wrong in itself is named first: it would be wrong under any program.
        if not _CURRENCY.fullmatch(currency):
            return invalid(CURRENCY.name, f"expected {CURRENCY.expected}")
        decimals = MINOR_UNITS.get(currency)
        try:
            # How many decimals a currency has that ISO does not know cannot be judged, the rest can.
            _parse(raw, len(raw) if decimals is None else decimals)
        except RejectedError as error:
            return error
        return RejectedError(
            Reason.UNSUPPORTED_CURRENCY,
            "currency: expected the program's currency or one that it has a rate for",
        )


def is_zero(raw: bytes) -> bool:
    """Whether a valid amount's text is nothing, which a small one may become only by its conversion."""
    return not _text(raw).strip("0.")


def _parse(raw: bytes, decimals: int) -> int:
    text = _text(raw)
    try:
        return parse_minor(text, decimals)
    except ValueError as error:
        expected = str(error) if _AMOUNT.fullmatch(text) else f"expected {AMOUNT_EXPECTED}"
        raise invalid(AMOUNT_NAME, expected) from None


def _text(raw: bytes) -> str:
    """The text of a JSON string or number; of anything else, its JSON, which is never an amount."""
    if raw.startswith(b'"'):
        return str(json.loads(raw))
    return raw.decode("utf-8")
