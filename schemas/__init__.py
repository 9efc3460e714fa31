"""The wire: bytes to values and back. Events in, tier changes and dead letters out, and the program file.

Every value is an ``int`` or a ``str``: times are epoch milliseconds (UTC), money is whole minor units of the
program's currency. Nothing here reads a clock, opens a socket or knows Kafka, Redis or Faust.
"""
