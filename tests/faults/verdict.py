"""What the verifier found: how much was compared, and what is wrong."""

import json
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Verdict:
    """How much was compared, and what is wrong, a line each."""

    customers: int = 0
    changes: int = 0
    #: Changes that had to be the batch computation's, their partition's input having come in time order.
    promised: int = 0
    dead_letters: int = 0
    #: Of bonds: records; customers whose last segment, conversions whose last attribution follow from the log; triggers
    #: by status; of them how many filled a cap, and of how many it is known that their goal had not come.
    told: int = 0
    segments: int = 0
    attributions: int = 0
    triggers: Counter[str] = field(default_factory=Counter)
    full_caps: int = 0
    goals: int = 0
    #: Whether the last of what was decided may not be published yet.
    stopped: bool = False
    wrong: list[str] = field(default_factory=list)

    def expect(self, what: str, found: object, expected: object) -> None:
        """Note a difference."""
        if found != expected:
            self.wrong.append(f"{what}: {short(found)}, expected {short(expected)}")

    @property
    def bonded(self) -> int:
        """The least of all that was compared of bonds."""
        statuses = (self.triggers[status] for status in ("sent", "suppressed", "held_out"))
        return min(self.segments, self.attributions, self.full_caps, *statuses)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong, of something."""
        return self.customers > 0 and not self.wrong

    def __str__(self) -> str:
        told = (
            f"{self.customers} customers, {self.changes} changes ({self.promised} of them promised), "
            f"{self.dead_letters} dead letters"
        )
        if self.told:
            triggers = ", ".join(f"{count} {status}" for status, count in sorted(self.triggers.items()))
            told += (
                f"; {self.told} records of bonds, {self.segments} last segments, {self.attributions} attributions, "
                f"triggers: {triggers} ({self.full_caps} fill a cap, {self.goals} before their goal)"
            )
        told += f": {len(self.wrong)} wrong"
        return "\n  ".join([told, *self.wrong[:20]])


def short(value: object) -> str:
    """A value for a line."""
    text = json.dumps(value) if isinstance(value, dict | list) else repr(value)
    return text if len(text) <= 900 else text[:900] + "…"
