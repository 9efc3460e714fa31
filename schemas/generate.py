"""Write the published documents: ``python -m schemas.generate`` puts them into ``docs/schemas``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from schemas.asyncapi import asyncapi_document
from schemas.json_schemas import DIALECT, all_schemas

FOLDER = Path(__file__).parent.parent / "docs" / "schemas"


def documents() -> dict[str, str]:
    """Every document's text by its file name."""
    files = {
        f"{name}.schema.json": {"$schema": DIALECT, "$id": f"{name}.schema.json", **schema}
        for name, schema in all_schemas().items()
    }
    files["asyncapi.json"] = asyncapi_document()
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in files.items()}


def main() -> None:
    """Write them all, and say so."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")


if __name__ == "__main__":
    main()
