"""What the worker tells over HTTP: its metrics, whether it lives, whether it works, one customer, why, and whether
it may be contacted."""

import asyncio
from typing import Any

from faust.web import Request, Response, View
from prometheus_client import CONTENT_TYPE_LATEST

from agents.contact import CONTACT, contact
from loyalty.why import why_line
from schemas.times import parse_rfc3339
from streams.app import Pipeline
from streams.inspection import Inspection, InspectionError
from streams.placement import home
from streams.protocols import ShardLostError

#: What follows the id of a customer of whom is asked why.
WHY = "/why"

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
                return await contact(pipeline.permissions, asked, view, request)
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
