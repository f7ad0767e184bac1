"""Names of a bundle's files, for who does without torch, which takes seconds to import."""

from __future__ import annotations

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "encoder.json"
