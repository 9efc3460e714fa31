"""Why a record cannot be used: the reasons that dead letters carry."""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """The reasons of a dead letter, in the order in which they are looked for: the first one is named."""

    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    INVALID_EVENT = "invalid_event"
    UNSUPPORTED_CURRENCY = "unsupported_currency"
    FUTURE_EVENT = "future_event"
    MISROUTED = "misrouted"
    TOO_LATE = "too_late"


class RejectedError(Exception):
    """A record that cannot be used. Reading it again gives the same answer, so it belongs among the dead
    letters.

    ``reason`` is why; ``detail`` reads ``<field>: <what was expected>``, where the field may also be
    ``value``, ``record`` or the name of a Kafka header. The detail never repeats what the record said.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
