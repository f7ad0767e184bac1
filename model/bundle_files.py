"""Names of a bundle's files, and JSON files as they are read and written; without torch, which takes seconds to import."""

from __future__ import annotations

from etl.durable import read_json, write_json

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "read_json", "write_json"]

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "encoder.json"
