"""One training run of one rank: from a verified dataset to an encoder over the whole table."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from etl.dataset import Manifest
from model.checkpoints import Checkpoints
from model.compact import compact, expand
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.engines import (
    DeepSpeedEngine,
    Engine,
    TorchEngine,
    optimizer,
    parameter_groups,
)
from model.known import KnownPairs
from model.loss import LossConfig
from model.positions import Position
from model.precision import Chosen, autocast, choose
from model.presets import EncoderConfig, Preset
from model.progress import Curve
from model.ranks import Ranks
from model.reader import TrainingReader
from model.train_config import TrainConfig
from model.trainer import LoopConfig, train

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
    checkpoints: Path | None = None,
) -> Fitted:
    """Train on ``config.dataset``, whose files the caller has verified.

    Args:
        config: See there.
        manifest: Of the dataset.
        ranks: Who takes part; this process alone if None.
        engine: ``torch`` trains in this process (tests, notebooks), ``deepspeed`` in a rank that its launcher started.
        device: ``cpu``, ``cuda`` or ``cuda:0``.
        checkpoints: Directory of this training's checkpoints: where it goes on from the newest whole one, and leaves more.

    Raises:
        InputError: the newest checkpoint is of another dataset, number of ranks or settings; all differences are listed.
    """
    ranks = ranks or Ranks()
    chosen = config.chosen_preset(manifest)
    full, pretrained = draw(chosen.encoder, config.seed), config.pretrained()
    if pretrained is not None:
        pretrained.load_into(full)
    reader = TrainingReader(config.dataset, manifest, config.reader(chosen), ranks)
    small, used = full, None
    if reader.table is not None:
        small, reader.table, used = compact(full, reader.table)
    loop = LoopConfig(
        steps=max(1, int(chosen.epochs * reader.steps_per_epoch)),
        warmup=config.warmup,
        layers_from=chosen.layers_from,
        loss=LossConfig(
            logq=config.logq,
            multi_positives=config.multi_positives,
            margin=config.margin,
            matryoshka=config.matryoshka,
        ),
        cache_texts=config.cache_texts,
        save_every=config.save_every,
        log_every=config.log_every,
    )
    if ranks.rank == 0:
        log.info("%s", _plan(manifest, reader, loop, small))
    deterministic(config.seed + ranks.rank)
    precision = choose(config.precision, device)
    model = DualEncoder(small, chosen.tau, config.learn_tau, autocast(precision, device)).to(device)
    stepper = _engine(engine, model, chosen, config, reader.batch + reader.crops, ranks, precision)
    known, settings = KnownPairs.load(config.dataset, manifest), _settings(config, chosen, reader, loop, ranks, precision)
    settings["init"] = pretrained.digest if pretrained else None
    curve, start, save = Curve(), None, None
    if checkpoints is not None:
        keeper = Checkpoints(checkpoints, ranks)
        curve, start = _go_on(keeper, stepper, reader, settings)

        def save(now: Curve) -> None:
            keeper.save(stepper, _position(reader, now.step, settings), asdict(now))

    batches = reader.batches(loop.steps, start)
    curve = train(stepper, batches, loop, ranks, known, curve=curve, save=save)
    trained = expand(full, stepper.weights(), used)
    return Fitted(trained, curve, settings)


def _go_on(
    keeper: Checkpoints, engine: Engine, reader: TrainingReader, settings: Mapping[str, Any]
) -> tuple[Curve, Position | None]:
    """The curve and the place in the data of the newest whole checkpoint, which is loaded; a fresh start without one."""
    found = keeper.newest()
    if found is None:
        return Curve(), None
    found.position.require_same(_position(reader, 0, settings))
    keeper.load(engine, found)
    log.warning("going on after step %d from %s", found.position.step, found.path)
    return Curve.from_json(found.progress), reader.position(found.position.step)


def _position(reader: TrainingReader, step: int, settings: Mapping[str, Any]) -> Position:
    """Where the reader is after a step, with all else that the steps to come depend on."""
    here = reader.position(step)
    return replace(here, settings=json.loads(json.dumps({**here.settings, **settings})))


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
    model: DualEncoder,
    chosen: Preset,
    config: TrainConfig,
    rows: int,
    ranks: Ranks,
    precision: Chosen,
) -> Engine:
    groups = parameter_groups(model, lr=chosen.lr, weight_lr=chosen.weight_lr, layers_lr=chosen.layers_lr)
    settings = config.deepspeed_settings(precision)
    model.train()
    if chosen.encoder.layers:
        model.encoder.encoder.checkpointing = config.activation_checkpointing
    if engine == "deepspeed":
        return DeepSpeedEngine(model, optimizer(groups), settings, rows)
    return TorchEngine(model, optimizer(groups), ranks, clip=settings["gradient_clipping"])


def _plan(manifest: Manifest, reader: TrainingReader, loop: LoopConfig, encoder: Encoder) -> str:
    return (
        f"{manifest.rows('pairs')} pairs, {manifest.rows('titles')} titles; {loop.steps} steps of {reader.ranks.world} x "
        f"({reader.batch} pairs + {reader.crops} crops), {reader.steps_per_epoch} an epoch; "
        f"{sum(p.numel() for p in encoder.parameters()) / 1e6:.1f} million parameters in reach"
    )


def _settings(
    config: TrainConfig, chosen: Preset, reader: TrainingReader, loop: LoopConfig, ranks: Ranks, precision: str
) -> dict[str, Any]:
    names = (
        "crop_style", "crop_tokens", "query_word_dropout", "warmup", "logq", "weight_power", "multi_positives", "margin",
        "learn_tau", "matryoshka", "seed",
    )  # fmt: skip
    return {
        "preset": config.preset,
        "dim": chosen.encoder.dim,
        "ranks": ranks.world,
        "batch": reader.batch,
        "crops": reader.crops,
        "steps": loop.steps,
        **{name: getattr(chosen, name) for name in ("tau", "lr", "epochs", "weight_lr", "layers_lr", "layers_from")},
        **{name: getattr(config, name) for name in names},
        "precision": precision,
    }
