"""The hot modules of this package compiled to C, where that was done for exactly these sources (ADR 0016).

They are found by a digest of all they were made from. So there is never an older build at work than the sources say:
where one does not fit, it is not looked at, and the same modules run as plain Python, some two times slower.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

PACKAGE = Path(__file__).parent
MODULES = (
    *("attachment", "attribution", "bonds", "contact_policy", "contacts", "customer", "fold", "holdout"),
    *("local_time", "rules", "scenarios", "scores", "segments", "standing", "subscriptions", "tiers"),
)
"""What is compiled: what every event runs through. Plain data and what computes a second time are not: mypyc would
forget what a ``msgspec.Struct`` is told in its class's head."""

SWITCH = "PURE_PYTHON_RULES"
"""Environment variable: ``1`` runs the rules as plain Python, whatever was compiled."""

_PLACE = PACKAGE / "_compiled"


def is_at_work() -> bool:
    """Whether a build is what this process runs."""
    module = sys.modules.get("loyalty.fold")
    return module is not None and not str(module.__file__).endswith(".py")


def place() -> Path:
    """Where a build of the present sources for this interpreter belongs."""
    digest = blake2b(repr((sys.implementation.cache_tag, sys.platform)).encode(), digest_size=12)
    for package in (PACKAGE, PACKAGE.parent / "schemas"):
        for source in sorted(package.glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return _PLACE / digest.hexdigest()


def found(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The build to run; None where there is none, or none is wanted."""
    if environment.get(SWITCH) == "1" or not _PLACE.is_dir():
        return None
    built = place()
    return built if built.is_dir() else None
