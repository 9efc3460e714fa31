"""The program file's ``[contact_policy]``: how often and when a customer may be contacted. The rules: docs/bonds.md."""

from __future__ import annotations

import re

from schemas.program_bonds import Cap, ContactPolicy
from schemas.program_table import LONGEST, LONGEST_NAME, LONGEST_TEXT, Table, refuse, whole
from schemas.times import DAY

CONTACT_POLICY_KEYS = ("quiet_from", "quiet_until", "transactional", "lapse", "caps")
CAP_KEYS = ("channel", "most", "within", "days")

_MOST_CAPS = 32
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_CLOCK_ALLOWED = 'a local time in quotes, from "00:00" to "23:59"'


def read_contact_policy(file: Table) -> ContactPolicy | None:
    """The file's contact policy, or None where it has none. Raises ``ProgramError``."""
    if "contact_policy" not in file:
        return None
    table = Table("contact_policy", file.values["contact_policy"], CONTACT_POLICY_KEYS)
    return ContactPolicy(
        caps=tuple(_cap(entry) for entry in table.tables("caps", CAP_KEYS, _MOST_CAPS)),
        quiet=_quiet(table),
        transactional=table.texts("transactional", LONGEST_TEXT),
        lapse=table.duration("lapse", f"{ContactPolicy().lapse // DAY}d", least=1, most=LONGEST),
    )


def _quiet(table: Table) -> tuple[int, int] | None:
    for key, other in (("quiet_from", "quiet_until"), ("quiet_until", "quiet_from")):
        if key not in table and other in table:
            refuse(table.at(key), f"missing; allowed is {_CLOCK_ALLOWED}, as {other} is given")
    if "quiet_from" not in table:
        return None
    begin, end = _clock(table, "quiet_from"), _clock(table, "quiet_until")
    if begin == end:
        refuse(table.at("quiet_until"), "expected another time than quiet_from")
    return begin, end


def _clock(table: Table, key: str) -> int:
    match = _CLOCK.fullmatch(table.text(key, _CLOCK_ALLOWED))
    if match is None:
        refuse(table.at(key), f"expected {_CLOCK_ALLOWED}")
    return int(match[1]) * 60 + int(match[2])


def _cap(table: Table) -> Cap:
    most = whole(table.at("most"), table.get("most", "a whole number from 0"), least=0)
    channel = table.name("channel", LONGEST_NAME) if "channel" in table else None
    within = table.duration("within", least=1, most=LONGEST) if "within" in table else None
    days = None
    if "days" in table:
        days = whole(table.at("days"), table.values["days"], most=LONGEST // DAY)
    if within is not None and days is not None:
        refuse(table.at("days"), "not allowed beside within: a cap has one of the two")
    if not most:
        # Never is never, within whatever.
        return Cap(0, channel)
    if within is None and days is None:
        refuse(table.path, "expected within or days: only a cap whose most is 0 may have neither")
    return Cap(most, channel, within, days)
