"""How the commands that read the store open it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streams.inspection import Inspection
from streams.preflight import read_program
from streams.settings import Settings


@asynccontextmanager
async def inspecting(settings: Settings) -> AsyncIterator[Inspection]:
    """The store of the settings' program. Raises InspectionError, FatalError and UnavailableError."""
    inspection = await Inspection.open(settings, read_program(settings.program))
    try:
        yield inspection
    finally:
        await inspection.close()
