"""The hot modules of this package and of ``loyalty`` compiled to C, where that was done for exactly these sources
(ADR 0016).

They are found by a digest of all they were made from. So there is never an older build at work than the sources say:
where one does not fit, it is not looked at, and the same modules run as plain Python, some two times slower.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {
    "loyalty": (
        "attachment",
        "attribution",
        "bonds",
        "contact_policy",
        "contacts",
        "customer",
        "entries",
        "fold",
        "folding",
        "holdout",
        "local_time",
        "packing",
        "rules",
        "saving",
        "scenarios",
        "scores",
        "segments",
        "standing",
        "subscriptions",
        "tiers",
    ),
    "schemas": (
        "amounts",
        "decoding",
        "event_key",
        "events",
        "money",
        "murmur2",
        "placing",
        "reading",
        "times",
    ),
}
"""What is compiled, by package: what every event runs through. Structs and what computes a second time are not:
mypyc would forget what a ``msgspec.Struct`` is told in its class's head."""

SWITCH = "PURE_PYTHON_RULES"
"""Environment variable: ``1`` runs the rules as plain Python, whatever was compiled."""

_PLACE = Path(__file__).parent / "_compiled"


def is_at_work() -> bool:
    """Whether a build is what this process runs."""
    module = sys.modules.get("loyalty.fold")
    return module is not None and not str(module.__file__).endswith(".py")


def place() -> Path:
    """Where a build of the present sources for this interpreter belongs."""
    digest = blake2b(repr((sys.implementation.cache_tag, sys.platform)).encode(), digest_size=12)
    for package in sorted(MODULES):
        for source in sorted((ROOT / package).glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return _PLACE / digest.hexdigest()


def found(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The build to run, a directory for each package; None where there is none, or none is wanted."""
    if environment.get(SWITCH) == "1" or not _PLACE.is_dir():
        return None
    built = place()
    return built if built.is_dir() else None
