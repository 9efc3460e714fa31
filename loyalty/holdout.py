"""Who is held out of the scenarios, drawn by a salted hash: of all of them, and of a single one."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from schemas.bond_records import HoldoutDraw
from schemas.program_bonds import MILLION, Holdout, Scenario

_ALL = 1 << 64


class Draw:
    """The draw of a program. It depends on the salt, its version, the share and the customer's id, and nothing else;
    a larger share holds out whom the smaller one did, and more. Without ``[holdout]`` nobody is held out."""

    def __init__(self, holdout: Holdout | None, scenarios: Iterable[Scenario] = ()) -> None:
        self._holdout = holdout
        self._shares = {scenario.name: scenario.holdout for scenario in scenarios}

    def overall(self, customer_id: str) -> bool:
        """Whether the customer is held out of all scenarios."""
        return self._holdout is not None and self._drawn("", customer_id, self._holdout.share)

    def scenario(self, name: str, customer_id: str) -> bool:
        """Whether the customer is held out of this one by its own share. Raises ``KeyError`` where it is unknown."""
        return self._drawn(name, customer_id, self._shares[name])

    def stamp(self, name: str, customer_id: str) -> HoldoutDraw | None:
        """The draw as a trigger of this scenario bears it; None without ``[holdout]``. Raises ``KeyError`` where the
        scenario is unknown."""
        if self._holdout is None:
            return None
        salt, version = self._holdout.salt, self._holdout.version
        return HoldoutDraw(self.overall(customer_id), self.scenario(name, customer_id), salt, version)

    def _drawn(self, scenario: str, customer_id: str, share: int) -> bool:
        if self._holdout is None or not share:
            return False
        text = f"{self._holdout.salt}:{self._holdout.version}:{scenario}:{customer_id}"
        number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
        return number * MILLION < share * _ALL
