"""One training run of one rank: from a verified dataset to an encoder over the whole table."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from etl.dataset import Manifest
from model.compact import compact, expand
from model.encoder import Encoder
from model.engines import (
    DEEPSPEED_CONFIG,
    DeepSpeedEngine,
    Engine,
    TorchEngine,
    optimizer,
    parameter_groups,
    read_deepspeed_config,
)
from model.known import KnownPairs
from model.loss import LossConfig
from model.precision import autocast, choose
from model.presets import EncoderConfig, Preset
from model.ranks import Ranks
from model.reader import TrainingReader
from model.train_config import TrainConfig
from model.trainer import Curve, LoopConfig, train

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a run made, and how."""

    encoder: Encoder
    curve: Curve
    settings: Mapping[str, Any]
    """All that the result depends on beside the dataset."""


def fit(
    config: TrainConfig,
    manifest: Manifest,
    ranks: Ranks | None = None,
    engine: Literal["torch", "deepspeed"] = "torch",
    device: str = "cpu",
) -> Fitted:
    """Train on ``config.dataset``, whose files the caller has verified.

    ``torch`` trains in this process (tests, notebooks); ``deepspeed`` expects that its launcher started the rank.
    """
    ranks = ranks or Ranks()
    chosen = config.chosen_preset(manifest)
    full = draw(chosen.encoder, config.seed)
    reader = TrainingReader(config.dataset, manifest, config.reader(chosen), ranks)
    small, used = full, None
    if reader.table is not None:
        small, reader.table, used = compact(full, reader.table)
    loop = LoopConfig(
        steps=max(1, int(chosen.epochs * reader.steps_per_epoch)),
        tau=chosen.tau,
        warmup=config.warmup,
        layers_from=chosen.layers_from,
        loss=LossConfig(logq=config.logq),
        log_every=config.log_every,
    )
    if ranks.rank == 0:
        log.info("%s", _plan(manifest, reader, loop, small))
    deterministic(config.seed + ranks.rank)
    precision = choose(config.precision, device)
    context = autocast(precision, device)
    stepper = _engine(engine, small.to(device), chosen, config, reader.batch + reader.crops, ranks, context)
    curve = train(stepper, reader.batches(loop.steps), loop, ranks, KnownPairs.load(config.dataset, manifest))
    small = small.cpu()
    trained = full if used is None else expand(full, small, used)
    return Fitted(
        trained, curve, _settings(config, chosen, reader, loop, ranks) | {"precision": choose(config.precision, device)}
    )


def draw(config: EncoderConfig, seed: int) -> Encoder:
    """The untrained encoder of a seed: the same on every rank."""
    torch.manual_seed(seed)
    return Encoder(config)


def deterministic(seed: int) -> None:
    """Same numbers on the same machine; kernels that have no such version only warn."""
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nobody reads memory before writing it here; filling DeepSpeed's buffers took .2 s each.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _engine(
    engine: str,
    encoder: Encoder,
    chosen: Preset,
    config: TrainConfig,
    rows: int,
    ranks: Ranks,
    context: Callable[[], AbstractContextManager[None]],
) -> Engine:
    groups = parameter_groups(encoder, lr=chosen.lr, weight_lr=chosen.weight_lr, layers_lr=chosen.layers_lr)
    settings = read_deepspeed_config(Path(config.deepspeed_config) if config.deepspeed_config else DEEPSPEED_CONFIG)
    encoder.train()
    if engine == "deepspeed":
        return DeepSpeedEngine(encoder, optimizer(groups), settings, rows, context)
    return TorchEngine(encoder, optimizer(groups), ranks, context, clip=settings["gradient_clipping"])


def _plan(manifest: Manifest, reader: TrainingReader, loop: LoopConfig, encoder: Encoder) -> str:
    return (
        f"{manifest.rows('pairs')} pairs, {manifest.rows('titles')} titles; {loop.steps} steps of {reader.ranks.world} x "
        f"({reader.batch} pairs + {reader.crops} crops), {reader.steps_per_epoch} an epoch; "
        f"{sum(p.numel() for p in encoder.parameters()) / 1e6:.1f} million parameters in reach"
    )


def _settings(config: TrainConfig, chosen: Preset, reader: TrainingReader, loop: LoopConfig, ranks: Ranks) -> dict[str, Any]:
    names = ("crop_style", "crop_tokens", "query_word_dropout", "warmup", "logq", "weight_power", "seed")
    return {
        "preset": config.preset,
        "ranks": ranks.world,
        "batch": reader.batch,
        "crops": reader.crops,
        "steps": loop.steps,
        **{name: getattr(chosen, name) for name in ("tau", "lr", "epochs", "weight_lr", "layers_lr", "layers_from")},
        **{name: getattr(config, name) for name in names},
    }
