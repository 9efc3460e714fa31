"""The page that says whether a customer may be contacted, and takes a place for who means to."""

from typing import Any, NamedTuple

from faust.web import Request, Response, View

from schemas.fields import ACTION, CUSTOMER_ID, TOUCH_CHANNEL, TextField
from schemas.rejection import RejectedError
from schemas.times import format_ms, parse_rfc3339
from streams.permissions import Answer, ElsewhereError, NoPolicyError, NotNowError, Permissions
from streams.protocols import FatalError, ShardLostError

#: What follows the id of a customer whom somebody means to contact.
CONTACT = "/contact"

_PARAMETERS = ("channel", "action", "reserve")
_RESERVE = {"true": True, "false": False}
#: The answer holds for the instant: nobody may keep it.
_HEADERS = {"Cache-Control": "no-store"}
#: Later no time can be written.
_LAST = parse_rfc3339("9999-12-31T23:59:59.999Z")


class BadRequestError(Exception):
    """A parameter that cannot be used. The message names it and says what is expected."""


class _Question(NamedTuple):
    customer_id: str
    channel: str
    action: str | None
    reserve: bool


async def contact(permissions: Permissions, customer_id: str, view: View, request: Request) -> Response:
    """Answers `GET /customers/<id>/contact?channel=…[&action=…][&reserve=true]`."""
    try:
        question = _read(customer_id, request)
        ask = permissions.reserve if question.reserve else permissions.ask
        answer = await ask(question.customer_id, question.channel, question.action)
    except BadRequestError as error:
        return _said(view, str(error), 400)
    except NoPolicyError as error:
        return _said(view, str(error), 409)
    except ElsewhereError as error:
        location = error.url + str(request.rel_url)
        return view.json({"error": str(error)}, status=307, headers={**_HEADERS, "Location": location})
    except (NotNowError, ShardLostError, FatalError) as error:
        return _said(view, str(error), 503)
    return view.json(_line(question, answer), headers=dict(_HEADERS))


def _said(view: View, error: str, status: int) -> Response:
    return view.json({"error": error}, status=status, headers=dict(_HEADERS))


def _line(question: _Question, answer: Answer) -> dict[str, Any]:
    permission = answer.permission
    return {
        "customer_id": question.customer_id,
        "channel": question.channel,
        "action": question.action,
        "decision": permission.decision,
        "until": None if permission.until is None else format_ms(min(permission.until, _LAST)),
        "reason": permission.reason,
        "as_of": format_ms(answer.as_of),
        "trigger_id": answer.trigger_id,
    }


def _read(customer_id: str, request: Request) -> _Question:
    given: Any = request.query  # a mapping that may hold a name more than once
    for name in given:
        if name not in _PARAMETERS:
            raise BadRequestError(f"{name}: no parameter of this page, which takes {', '.join(_PARAMETERS)}")
        if len(given.getall(name)) > 1:
            raise BadRequestError(f"{name}: given more than once")
    reserve = given.get("reserve", "false")
    if reserve not in _RESERVE:
        raise BadRequestError(f"reserve: expected true or false, not {reserve!r}")
    if _RESERVE[reserve] and request.method != "GET":
        raise BadRequestError(f"reserve: only with GET, not with {request.method}")
    if "channel" not in given:
        raise BadRequestError("channel: missing")
    action = given.get("action")
    return _Question(
        _checked(CUSTOMER_ID, customer_id),
        _checked(TOUCH_CHANNEL, given["channel"]),
        None if action is None else _checked(ACTION, action),
        _RESERVE[reserve],
    )


def _checked(field: TextField, text: str) -> str:
    try:
        return field.check(text)
    except RejectedError as rejected:
        raise BadRequestError(rejected.detail) from None
