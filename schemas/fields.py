"""The fields of the input events, as a table: what the decoder names when it rejects, and what is published
as JSON Schema. The contract's section 2, with the bounds that this project chose where the contract has none.
"""

from __future__ import annotations

import msgspec

from schemas.rejection import Reason, RejectedError

MAX_TEXT = 256
"""Characters, for optional strings to which the contract sets no bound."""

MAX_TRIGGER_ID = 512
"""Characters: the longest program id, customer_id and name of a scenario make one trigger's id, too."""


class TextField(msgspec.Struct, frozen=True):
    """A string of ``least`` to ``most`` characters (Unicode code points), or one of ``choices``.

    One with a ``form`` is judged further by who reads it; here only its being a string is asked.

    An optional one may be absent or JSON null: both mean that it was not given.
    """

    name: str
    about: str
    required: bool = True
    least: int = 0
    most: int = MAX_TEXT
    choices: tuple[str, ...] = ()
    example: str | None = None
    form: str = ""

    @property
    def expected(self) -> str:
        if self.choices:
            return " or ".join(f'"{choice}"' for choice in self.choices)
        if self.form:
            return self.form
        if self.least:
            return f"a string of {self.least} to {self.most} characters"
        return f"a string of at most {self.most} characters"

    def read(self, fields: dict[str, object]) -> str | None:
        """The field's text, or None where it is optional and was not given.

        Raises ``RejectedError`` (``invalid_event``) naming the field.
        """
        if self.name not in fields:
            if self.required:
                raise invalid(self.name, "missing")
            return None
        value = fields[self.name]
        if value is None and not self.required:
            return None
        # Exactly str: the text of a number is a subclass.
        if type(value) is not str:
            raise invalid(self.name, f"expected {self.expected}")
        return self.check(value)

    def check(self, text: str) -> str:
        """The text itself, if it keeps the field's rules; raises ``RejectedError`` (``invalid_event``)."""
        if not text.isascii() and not _is_unicode(text):
            raise invalid(self.name, "expected Unicode text, without half a surrogate pair")
        if not self.least <= len(text) <= self.most or (self.choices and text not in self.choices):
            raise invalid(self.name, f"expected {self.expected}")
        return text


def invalid(field: str, detail: str) -> RejectedError:
    """The rejection of an event for one field of it."""
    return RejectedError(Reason.INVALID_EVENT, f"{field}: {detail}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_UNBOUNDED = 1 << 62
_BONDS_ONLY = "Read only where the program keeps bonds."

EVENT_ID = TextField(
    "event_id",
    "With source, the idempotency key within its topic and customer: the first read counts.",
    least=1,
    most=128,
    example="b31198570044",
)
SOURCE = TextField(
    "source", "Which upstream system; not given means the empty string.", required=False, most=128
)
CUSTOMER_ID = TextField(
    "customer_id", "The customer, and the record's key.", least=1, most=128, example="900"
)
PURCHASE_TYPE = TextField("type", "What happened.", choices=("purchase", "refund"), example="purchase")
TOUCHPOINT_TYPE = TextField("type", "What happened.", choices=("touchpoint",), example="touchpoint")
OCCURRED_AT = TextField(
    "occurred_at",
    "When it happened: RFC 3339 with an offset, from 1970 on; finer fractions are cut to the millisecond.",
    most=_UNBOUNDED,
    example="2017-04-02T11:53:26.000Z",
    form="an RFC 3339 time with an offset, such as 2017-04-02T11:53:26.000Z",
)
ORDER_ID = TextField(
    "order_id",
    "Names the order within the customer, whatever the source.",
    least=1,
    most=128,
    example="31198570044",
)
CURRENCY = TextField(
    "currency",
    "ISO 4217: the program's, or one that it has a rate for.",
    most=_UNBOUNDED,
    example="USD",
    form="an ISO 4217 code of three capital letters",
)
CHANNEL = TextField("channel", "Where it was bought: store, web, app, …", required=False, example="store")
TOUCH_CHANNEL = TextField(
    "channel",
    "By which way: email, sns, blog, web, app, store, call, event, mail, …",
    least=1,
    most=64,
    example="email",
)
DIRECTION = TextField(
    "direction",
    "inbound: the customer came to us; outbound: we contacted the customer.",
    choices=("inbound", "outbound"),
    example="outbound",
)
ACTION = TextField(
    "action",
    "What was done: view, open, click, visit, post, review, referral, support, send, …",
    required=False,
    example="send",
)
STORE_ID = TextField("store_id", "The store, where there was one.", required=False)
CAMPAIGN_ID = TextField("campaign_id", "The campaign it belongs to.", required=False)
SUBSCRIPTION_ID = TextField("subscription_id", "The subscription it was bought under.", required=False)
STAFF_ID = TextField("staff_id", "The member of staff, where there was one.", required=False)
TOUCH_ORDER_ID = TextField("order_id", "The order it was about.", required=False)
TOUCH_SUBSCRIPTION_ID = TextField(
    "subscription_id",
    f"The subscription that it pauses, resumes or cancels. {_BONDS_ONLY}",
    required=False,
)
TRIGGER_ID = TextField(
    "trigger_id",
    f"The event_id of the nurturing trigger that it carries out, sent back by who sent the message. {_BONDS_ONLY}",
    required=False,
    most=MAX_TRIGGER_ID,
)
TIMEZONE = TextField(
    "timezone",
    f"The customer's time zone, by its IANA name; the newest counts. {_BONDS_ONLY}",
    required=False,
    form='the name of an IANA time zone, such as "Europe/Paris"',
)

COMMAND_TYPE = TextField("type", "What is to be done.", choices=("override",), example="override")
MODE = TextField(
    "mode",
    "pin: this tier, whatever is earned; floor: this tier at least; clear: neither, the tier that is earned.",
    choices=("pin", "floor", "clear"),
    example="floor",
)
TIER = TextField(
    "tier",
    "One of the program's tiers. Required unless mode is clear, and not read then.",
    least=1,
    most=64,
    example="gold",
    form="the name of one of the program's tiers",
)
UNTIL = TextField(
    "until",
    "Its end, which is no longer part of it: RFC 3339 with an offset, after occurred_at. Required unless mode is "
    "clear, and not read then.",
    most=_UNBOUNDED,
    example="2017-07-01T00:00:00.000Z",
    form="an RFC 3339 time with an offset, such as 2017-07-01T00:00:00.000Z",
)
ACTOR = TextField("actor", "Who decided it.", least=1, most=128, example="anna@support")
COMMAND_REASON = TextField("reason", "Why, for people.", least=1, example="a late delivery, ticket 4711")

AMOUNT_NAME = "amount"
AMOUNT_EXPECTED = "digits without sign or exponent, at most 13 before the point, as a string or a number"

IDENTITY_FIELDS = (EVENT_ID, SOURCE)
PURCHASE_FIELDS = (
    *(PURCHASE_TYPE, CUSTOMER_ID, OCCURRED_AT, ORDER_ID, CURRENCY),
    *(CHANNEL, STORE_ID, CAMPAIGN_ID, SUBSCRIPTION_ID),
)
PLAIN_TOUCHPOINT_FIELDS = (
    *(TOUCHPOINT_TYPE, CUSTOMER_ID, OCCURRED_AT, TOUCH_CHANNEL, DIRECTION),
    *(ACTION, CAMPAIGN_ID, STORE_ID, STAFF_ID, TOUCH_ORDER_ID),
)
"""All that a program reads which keeps no bonds."""

TOUCHPOINT_FIELDS = (*PLAIN_TOUCHPOINT_FIELDS, TOUCH_SUBSCRIPTION_ID, TRIGGER_ID, TIMEZONE)
COMMAND_FIELDS = (COMMAND_TYPE, CUSTOMER_ID, OCCURRED_AT, MODE, TIER, UNTIL, ACTOR, COMMAND_REASON)
HOLDING_NAMES = (TIER.name, UNTIL.name)
"""The fields of a command that holds something: not read where ``mode`` is ``clear``."""
