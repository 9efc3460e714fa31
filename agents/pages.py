"""What the worker tells over HTTP: its metrics, whether it lives, whether it works, and one customer."""

from typing import Any

from faust.web import Request, Response, View
from prometheus_client import CONTENT_TYPE_LATEST

from schemas.times import parse_rfc3339
from streams.app import Pipeline
from streams.inspection import Inspection, InspectionError
from streams.protocols import ShardLostError


def join(pipeline: Pipeline) -> None:
    """Serve /metrics, /healthz, /readyz and /customers/<id>."""
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
        held = sorted(pipeline.shards.held)
        missing = "" if held else "no partitions are held"
        try:
            await pipeline.store.now()
            await pipeline.log.ends(held[:1] or [0])
        except ShardLostError as error:
            missing = str(error)
        if missing:
            return view.json({"status": "not ready", "reason": missing}, status=503)
        return view.json({"status": "ready", "partitions": held})

    @page("/customers/{customer_id:.+}", name="customer")
    async def customer(view: View, request: Request, **_: Any) -> Response:
        try:
            as_of = request.query.get("as_of")
            shown = await inspection.customer(
                request.match_info["customer_id"], None if as_of is None else parse_rfc3339(as_of)
            )
        except InspectionError as error:
            return view.json({"error": str(error)}, status=404 if "no customer" in str(error) else 400)
        except ShardLostError as error:
            return view.json({"error": str(error)}, status=503)
        except ValueError as error:
            return view.json({"error": f"as_of: {error}"}, status=400)
        return view.json(inspection.line(shown))
