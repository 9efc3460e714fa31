"""The wire: bytes to values and back. Events in, tier changes and dead letters out, and the program file.

Every value is an ``int`` or a ``str``: times are epoch milliseconds (UTC), money is whole minor units of the
program's currency. Nothing here reads a clock, opens a socket or knows Kafka, Redis or Faust.
"""

from schemas import compiled as _compiled

BUILT = _compiled.found()
# Before anything else of this package is imported: a module is taken from the first place that has it.
if BUILT is not None:
    __path__.insert(0, str(BUILT / "schemas"))
