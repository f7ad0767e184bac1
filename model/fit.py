"""One training run of one rank: from a verified dataset to an encoder over the whole table."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etl.dataset import Manifest
from model.averaging import AveragedEngine
from model.compact import compact, expand
from model.distillation import Teacher
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.engines import (
    DeepSpeedEngine,
    Engine,
    EngineName,
    TorchEngine,
    optimizer,
    parameter_groups,
)
from model.known import KnownPairs
from model.loss import LossConfig
from model.precision import Chosen, autocast, choose
from model.presets import EncoderConfig, Preset
from model.progress import Curve
from model.ranks import Ranks
from model.reader import Batch, TrainingReader
from model.resume import Resume
from model.settings import starting_position, training_settings
from model.tracking import Tracker
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
    device: str = "cpu",
    checkpoints: Path | None = None,
    trackers: Sequence[Tracker] = (),
    pace: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
) -> Fitted:
    """Train on ``config.dataset``, whose files the caller has verified.

    In a notebook, with the dataset that ``labeller dataset`` left::

        config = TrainConfig(root="warehouse/sample", ds="2024-05-07", preset="tiny")
        fitted = fit(config, etl.dataset.verify(config.dataset))
        fitted.curve.points

    Args:
        config: See there.
        manifest: Of the dataset.
        ranks: Who takes part, with ``config.engine``; None: this process alone, with plain torch.
        device: ``cpu``, ``cuda`` or ``cuda:0``.
        checkpoints: Directory of this training's checkpoints: where it goes on from the newest whole one, and leaves more.
        trackers: Who gets the figures of each logged step, on rank 0 only; the caller closes them.
        pace: Hands the batches on as they are, whenever it likes; a benchmark takes turns so.

    Raises:
        InputError: the newest checkpoint is of another dataset, engine or settings, or of other ranks that cannot share its
            batch; all differences are listed.
    """
    config = config.with_start(manifest.spec, config.dataset)
    engine: EngineName = config.engine if ranks is not None else "torch"
    ranks = ranks or Ranks()
    resume = Resume.newest(checkpoints, ranks, config.keep_checkpoints)
    run = _prepare(config, manifest, resume, engine, device)
    if ranks.rank == 0:
        log.info("%s", _plan(manifest, run, config))
    deterministic(config.seed + ranks.rank)
    start = starting_position(run.reader, run.settings)
    resume.require_continuable(start)
    stepper = _averaged(_engine(config, run, ranks, engine, device, resume.resized), config, run.loop, ranks)
    known = KnownPairs.load(config.dataset, manifest)
    curve, save = resume.load(stepper), resume.saving(stepper, start)
    for tracker in trackers if ranks.rank == 0 else ():
        tracker.open(curve.step, curve.tracked, run.settings)
    batches = pace(run.reader.batches(run.loop.steps, run.reader.position(curve.step)))
    curve = train(stepper, batches, run.loop, ranks, known, curve=curve, save=save, trackers=trackers, teacher=run.teacher)
    return Fitted(expand(run.whole, stepper.weights(), run.used), curve, run.settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What a training has settled before anything of it is on its device."""

    chosen: Preset
    reader: TrainingReader
    whole: Encoder
    """As it starts, with the rows of its table that the dataset does not reach."""
    trained: Encoder
    """Over the rows ``used``, which it does; ``whole`` itself where a token is its only feature."""
    used: np.ndarray | None
    teacher: Teacher | None
    loop: LoopConfig
    precision: Chosen
    settings: Mapping[str, Any]


def _prepare(config: TrainConfig, manifest: Manifest, resume: Resume, engine: EngineName, device: str) -> _Run:
    chosen = resume.preset(config, manifest)
    whole = draw(chosen.encoder, config.seed)
    pretrained = config.pretrained()
    if pretrained is not None:
        pretrained.load_into(whole)
    reader = TrainingReader(config.dataset, manifest, config.reader(chosen), resume.ranks)
    teacher = Teacher.of(config.distil_from, manifest, config.distil_weight, reader.table, device)
    trained, used = whole, None
    if reader.table is not None:
        trained, reader.table, used = compact(whole, reader.table)
    loop = _loop(config, chosen, resume.steps(max(1, int(chosen.epochs * reader.steps_per_epoch))))
    precision = choose(config.precision, device)
    settings = training_settings(config, chosen, reader, loop, resume.ranks, precision, engine)
    settings["init"] = pretrained.digest if pretrained else None
    settings["teacher"] = teacher.bundle_id if teacher else None
    return _Run(
        chosen=chosen,
        reader=reader,
        whole=whole,
        trained=trained,
        used=used,
        teacher=teacher,
        loop=loop,
        precision=precision,
        settings=settings,
    )


def _loop(config: TrainConfig, chosen: Preset, steps: int) -> LoopConfig:
    return LoopConfig(
        steps=steps,
        warmup=config.warmup,
        layers_from=chosen.layers_from,
        loss=LossConfig(
            logq=config.logq,
            multi_positives=config.multi_positives,
            masks=config.masks,
            margin=config.margin,
            matryoshka=config.matryoshka,
        ),
        cache_texts=config.cache_texts,
        save_every=config.save_every,
        log_every=config.log_every,
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


def _engine(config: TrainConfig, run: _Run, ranks: Ranks, engine: EngineName, device: str, universal: bool) -> Engine:
    chosen = run.chosen
    model = DualEncoder(run.trained, chosen.tau, config.learn_tau, autocast(run.precision, device)).to(device)
    groups = parameter_groups(model, lr=chosen.lr, weight_lr=chosen.weight_lr, layers_lr=chosen.layers_lr)
    settings = config.deepspeed_settings(run.precision)
    model.train()
    if chosen.encoder.layers:
        model.encoder.encoder.checkpointing = config.activation_checkpointing
    if engine == "deepspeed":
        return DeepSpeedEngine(model, optimizer(groups), settings, run.reader.batch + run.reader.crops, universal)
    return TorchEngine(model, optimizer(groups), ranks, clip=settings["gradient_clipping"])


def _averaged(engine: Engine, config: TrainConfig, loop: LoopConfig, ranks: Ranks) -> Engine:
    """The engine, around which the mean of its last weights is kept if that is configured."""
    if config.average_from >= 1:
        return engine
    # Layers that rest are as they were drawn: a mean with these in it would be of no training.
    start = int(loop.steps * max(config.average_from, loop.layers_from))
    return AveragedEngine(engine, ranks, start=start, steps=loop.steps)


def _plan(manifest: Manifest, run: _Run, config: TrainConfig) -> str:
    reader, loop, clipping = run.reader, run.loop, run.settings["gradient_clipping"]
    more = []
    if loop.layers_from:
        more.append(f"layers join at step {int(loop.steps * loop.layers_from) + 1}: larger gradients, slower steps")
    if config.hard_share:
        hard = reader.config.hard
        more.append(
            f"{hard.rows(loop.steps, loop.steps, reader.batch)} hard negatives a step from step "
            f"{math.ceil(hard.start * loop.steps) + 1}"
        )
    if config.save_every >= loop.steps:
        more.append(f"no checkpoint before the end (save_every {config.save_every})")
    parts = (
        f"{manifest.rows('pairs')} pairs, {manifest.rows('titles')} titles",
        f"{loop.steps} steps of {reader.ranks.world} x ({reader.batch} pairs + {reader.crops} crops), "
        f"{reader.steps_per_epoch} an epoch",
        f"{sum(p.numel() for p in run.trained.parameters()) / 1e6:.1f} million parameters in reach",
        f"gradients are clipped at a norm of {clipping:g}" if clipping else "no gradient clipping",
    )
    return "; ".join((*parts, *more))
