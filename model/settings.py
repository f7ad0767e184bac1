"""All that a training's result depends on beside its dataset, which is also what must not change where it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from model.engines import EngineName
from model.positions import Position
from model.precision import Chosen
from model.presets import Preset
from model.ranks import Ranks
from model.reader import TrainingReader
from model.train_config import TrainConfig
from model.trainer import LoopConfig


def training_settings(
    config: TrainConfig,
    chosen: Preset,
    reader: TrainingReader,
    loop: LoopConfig,
    ranks: Ranks,
    precision: Chosen,
    engine: EngineName,
) -> dict[str, Any]:
    """By name; the weights it starts from and the teacher join where these are read."""
    names = (
        "crop_style", "crop_tokens", "query_word_dropout", "word_dropout", "feature_dropout", "average_from", "warmup",
        "logq", "weight_power", "multi_positives", "masks", "margin", "learn_tau", "distil_weight", "cache_texts",
        "hard_share", "hard_from", "seed",
    )  # fmt: skip
    theirs = config.deepspeed_settings(precision)
    clipping = theirs.pop("gradient_clipping")
    return {
        "preset": config.preset,
        "engine": engine,
        "gradient_clipping": clipping,
        **(_flat("deepspeed", theirs) if engine == "deepspeed" else {}),
        **_flat("encoder", chosen.encoder.to_json()),
        "ranks": ranks.world,
        "batch": reader.batch,
        "crops": reader.crops,
        "steps": loop.steps,
        **{name: getattr(chosen, name) for name in ("tau", "lr", "epochs", "weight_lr", "layers_lr", "layers_from")},
        **{name: getattr(config, name) for name in names},
        "precision": precision,
    }


def starting_position(reader: TrainingReader, settings: Mapping[str, Any]) -> Position:
    """Where the reader is before the first step, with all else that the steps to come depend on."""
    here = reader.position(0)
    return replace(here, settings=json.loads(json.dumps({**here.settings, **settings})))


def _flat(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted names, so that each that differs has a line of its own."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(f"{name}.{key}", value) if isinstance(value, Mapping) else {f"{name}.{key}": value}
    return found
