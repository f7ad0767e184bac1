"""Names of a bundle's files, and JSON files as they are read and written; without torch, which takes seconds to import."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etl.errors import InputError

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "encoder.json"


def read_json(path: Path, missing: str = "is missing") -> dict[str, Any]:
    """Content of a JSON file.

    Raises:
        InputError: it is not there (the directory ``missing``), or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent} {missing} (no {path.name})") from None
    except ValueError as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """Write aside, then rename: a reader sees the old file or the new one."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(path)
