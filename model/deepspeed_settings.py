"""DeepSpeed's settings: our file or a user's, refused where training would go wrong in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from etl.errors import InputError
from model.precision import Chosen

OURS = Path(__file__).with_name("deepspeed.json")
_SET_BY_JOB = ("optimizer", "scheduler", "train_batch_size", "train_micro_batch_size_per_gpu", "fp16", "bf16")
_CACHED_STAGES = 2


def deepspeed_settings(path: Path = OURS, *, cache_texts: int = 0, precision: Chosen = "fp32") -> dict[str, Any]:
    """Settings from a file, for a training that encodes ``cache_texts`` at once (0: all) in ``precision``.

    Raises:
        InputError: no such file, no JSON, or settings without which training goes wrong in silence; all of them.
    """
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"DeepSpeed settings {path} cannot be read: {error}") from None
    problems = []
    if "gradient_clipping" not in settings:
        problems.append("gradient_clipping is not set: DeepSpeed would clip at 1.0 without a word; set it (0 is off)")
    problems += [
        f"{key} is set by the job (see `labeller train --help`): remove it" for key in _SET_BY_JOB if key in settings
    ]
    if settings.get("gradient_accumulation_steps", 1) != 1:
        problems.append(
            "gradient_accumulation_steps must be 1: accumulated steps are no negatives of each other; for a batch larger "
            "than the memory set [train] cache_texts (GradCache)"
        )
    if cache_texts and settings.get("zero_optimization", {}).get("stage", 0) > _CACHED_STAGES:
        problems.append(
            "zero_optimization.stage 3 and cache_texts exclude each other: take stage 0 to 2, or cache_texts = 0"
        )
    if problems:
        raise InputError.of(problems, heading=f"DeepSpeed settings {path} refused:")
    # The parameters stay fp32 under bf16 (autocast); fp16 needs DeepSpeed's loss scale.
    return settings | ({"fp16": {"enabled": True}} if precision == "fp16" else {})
