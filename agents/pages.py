"""What the worker tells over HTTP: its metrics, whether it lives, whether it works, one customer, why, and whether
it may be contacted."""

import asyncio
from typing import Any, NamedTuple

from faust.web import Request, Response, View
from prometheus_client import CONTENT_TYPE_LATEST

from loyalty.why import why_line
from schemas.fields import ACTION, CUSTOMER_ID, TOUCH_CHANNEL, TextField
from schemas.murmur2 import home
from schemas.rejection import RejectedError
from schemas.times import format_ms, parse_rfc3339
from streams.app import Pipeline
from streams.inspection import Inspection, InspectionError
from streams.permissions import Answer, ElsewhereError, NoPolicyError, NotNowError, Permissions
from streams.protocols import FatalError, ShardLostError

#: What follows the id of a customer of whom is asked why.
WHY = "/why"

#: What follows the id of a customer whom somebody means to contact.
CONTACT = "/contact"

_PARAMETERS = ("channel", "action", "reserve")
_RESERVE = {"true": True, "false": False}
#: The answer holds for the instant: nobody may keep it.
_HEADERS = {"Cache-Control": "no-store"}
#: Later no time can be written.
_LAST = parse_rfc3339("9999-12-31T23:59:59.999Z")

#: Seconds within which Redis and Kafka must have answered for /readyz: who probes it does not wait long.
_PATIENCE = 3


def join(pipeline: Pipeline) -> None:
    """Serve /metrics, /healthz, /readyz, /customers/<id>, /customers/<id>/why and /customers/<id>/contact."""
    page = pipeline.app.page
    inspection = Inspection(pipeline.settings, pipeline.domain.program, pipeline.store, pipeline.partitions)

    @page("/metrics", name="metrics")
    async def metrics(view: View, request: Request) -> Response:
        return view.bytes(pipeline.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @page("/healthz", name="healthz")
    async def healthz(view: View, request: Request) -> Response:
        return view.json({"status": "alive"})

    @page("/readyz", name="readyz")
    async def readyz(view: View, request: Request) -> Response:
        missing = await _missing(pipeline)
        if missing:
            return view.json({"status": "not ready", "reason": missing}, status=503)
        return view.json({"status": "ready", "partitions": sorted(pipeline.shards.held)})

    @page("/customers/{customer_id:.+}", name="customer")
    async def customer(view: View, request: Request, **_: Any) -> Response:
        try:
            customer_id = request.match_info["customer_id"]
            # An id may hold slashes: a customer who is called so comes before the question why. Who names a channel
            # means to contact somebody, and is not kept waiting by a look whether there is such a customer.
            if customer_id.endswith(CONTACT) and ("channel" in request.query or not await known(customer_id)):
                asked = customer_id.removesuffix(CONTACT)
                return await _contact(pipeline.permissions, asked, view, request)
            as_of = request.query.get("as_of")
            at = None if as_of is None else parse_rfc3339(as_of)
            if customer_id.endswith(WHY) and not await known(customer_id):
                return view.json(why_line(await inspection.why(customer_id.removesuffix(WHY), at)))
            return view.json(inspection.line(await inspection.customer(customer_id, at)))
        except InspectionError as error:
            return view.json({"error": str(error)}, status=404 if "no customer" in str(error) else 400)
        except ShardLostError as error:
            return view.json({"error": str(error)}, status=503)
        except ValueError as error:
            return view.json({"error": f"as_of: {error}"}, status=400)

    async def known(customer_id: str) -> bool:
        return await pipeline.store.knows(home(customer_id.encode(), pipeline.partitions), customer_id)


async def _missing(pipeline: Pipeline) -> str:
    """What the worker lacks for its work; empty where it lacks nothing."""
    if pipeline.failure is not None:
        return str(pipeline.failure)
    held = sorted(pipeline.shards.held)
    asked = "Redis"
    try:
        async with asyncio.timeout(_PATIENCE):
            await pipeline.store.now()
            asked = "Kafka"
            await pipeline.log.ends(held[:1] or [0])
    except ShardLostError as error:
        return str(error)
    except TimeoutError:
        return f"{asked} did not answer within {_PATIENCE} s"
    return "" if held else "no partitions are held"


class _BadRequestError(Exception):
    """A parameter that cannot be used. The message names it and says what is expected."""


class _Question(NamedTuple):
    customer_id: str
    channel: str
    action: str | None
    reserve: bool


async def _contact(permissions: Permissions, customer_id: str, view: View, request: Request) -> Response:
    """Answers `GET /customers/<id>/contact?channel=…[&action=…][&reserve=true]`."""
    try:
        question = _read(customer_id, request)
        ask = permissions.reserve if question.reserve else permissions.ask
        answer = await ask(question.customer_id, question.channel, question.action)
    except _BadRequestError as error:
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
            raise _BadRequestError(f"{name}: no parameter of this page, which takes {', '.join(_PARAMETERS)}")
        if len(given.getall(name)) > 1:
            raise _BadRequestError(f"{name}: given more than once")
    reserve = given.get("reserve", "false")
    if reserve not in _RESERVE:
        raise _BadRequestError(f"reserve: expected true or false, not {reserve!r}")
    if _RESERVE[reserve] and request.method != "GET":
        raise _BadRequestError(f"reserve: only with GET, not with {request.method}")
    if "channel" not in given:
        raise _BadRequestError("channel: missing")
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
        raise _BadRequestError(rejected.detail) from None
