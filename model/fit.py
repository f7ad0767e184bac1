"""One training run of one rank: from a verified dataset to an encoder over the whole table."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from etl.dataset import Manifest
from model.averaging import AveragedEngine
from model.checkpoints import Checkpoints, Found
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
from model.positions import Position
from model.precision import Chosen, autocast, choose
from model.presets import EncoderConfig, Preset
from model.progress import Curve
from model.ranks import Ranks
from model.reader import Batch, TrainingReader, fit_batch
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
    engine: EngineName = config.engine if ranks is not None else "torch"
    ranks = ranks or Ranks()
    keeper = Checkpoints(checkpoints, ranks, config.keep_checkpoints) if checkpoints is not None else None
    found = keeper.newest() if keeper is not None else None
    resized = found is not None and found.position.world != ranks.world
    chosen = _chosen(config, manifest, found, ranks)
    full = draw(chosen.encoder, config.seed)
    pretrained = config.pretrained()
    if pretrained is not None:
        pretrained.load_into(full)
    reader = TrainingReader(config.dataset, manifest, config.reader(chosen), ranks)
    teacher = Teacher.of(config.distil_from, manifest, config.distil_weight, reader.table, device)
    small, used = full, None
    if reader.table is not None:
        small, reader.table, used = compact(full, reader.table)
    loop = _loop(config, chosen, reader, found)
    precision = choose(config.precision, device)
    settings = training_settings(config, chosen, reader, loop, ranks, precision, engine)
    if ranks.rank == 0:
        log.info("%s", _plan(manifest, reader, loop, small, settings["gradient_clipping"]))
    deterministic(config.seed + ranks.rank)
    model = DualEncoder(small, chosen.tau, config.learn_tau, autocast(precision, device)).to(device)
    known = KnownPairs.load(config.dataset, manifest)
    settings["init"] = pretrained.digest if pretrained else None
    settings["teacher"] = teacher.bundle_id if teacher else None
    here = _position(reader, 0, settings)
    if found is not None:
        found.position.require_continuable(here)
    stepper = _engine(engine, model, chosen, config, reader.batch + reader.crops, ranks, precision, resized)
    stepper = _averaged(stepper, config, loop, ranks)
    curve, start, save = Curve(), None, None
    if keeper is not None and found is not None:
        curve, start = _go_on(keeper, found, stepper, ranks), reader.position(found.position.step)
    if keeper is not None:

        def save(now: Curve) -> None:
            keeper.save(stepper, replace(here, step=now.step), now.agreed(ranks))

    for tracker in trackers if ranks.rank == 0 else ():
        tracker.open(curve.step, curve.tracked, settings)
    batches = pace(reader.batches(loop.steps, start))
    curve = train(stepper, batches, loop, ranks, known, curve=curve, save=save, trackers=trackers, teacher=teacher)
    trained = expand(full, stepper.weights(), used)
    return Fitted(trained, curve, settings)


def _chosen(config: TrainConfig, manifest: Manifest, found: Found | None, ranks: Ranks) -> Preset:
    """The preset as configured; a batch that nobody asked for fits the data, or what the training goes on from."""
    chosen = config.chosen_preset(manifest)
    if config.batch is not None:
        return chosen
    if found is None:
        return chosen.with_settings(batch=fit_batch(manifest, chosen.batch, ranks.world))
    together = found.position.settings["batch"] * found.position.world
    return chosen.with_settings(batch=max(1, together // ranks.world))


def _loop(config: TrainConfig, chosen: Preset, reader: TrainingReader, found: Found | None) -> LoopConfig:
    steps = max(1, int(chosen.epochs * reader.steps_per_epoch))
    if found is not None:
        # Other ranks have other rests of an epoch; the schedule stays that of the steps planned first, however often
        # their number has changed. Other epochs are refused as such.
        steps = found.position.settings["steps"]
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


def _go_on(keeper: Checkpoints, found: Found, engine: Engine, ranks: Ranks) -> Curve:
    """The curve of the newest whole checkpoint, which is loaded."""
    keeper.load(engine, found)
    before, step = found.position.world, found.position.step
    log.warning("going on after step %d from %s", step, found.path)
    curve = found.progress
    if before != ranks.world and ranks.rank == 0:
        log.warning(
            "step %d was of %d ranks, there are %d now: weights and optimizer are those saved and batches are as large, but "
            "rows come in another order: some of the current epoch come twice or not at all; dropout %s",
            step, before, ranks.world,
            f"of ranks {before} to {ranks.world - 1} is drawn anew" if ranks.world > before else f"goes on on {ranks.world}",
        )  # fmt: skip
    curve.rows, curve.tokens = (count * before // ranks.world for count in (curve.rows, curve.tokens))
    return curve


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
    universal: bool,
) -> Engine:
    groups = parameter_groups(model, lr=chosen.lr, weight_lr=chosen.weight_lr, layers_lr=chosen.layers_lr)
    settings = config.deepspeed_settings(precision)
    model.train()
    if chosen.encoder.layers:
        model.encoder.encoder.checkpointing = config.activation_checkpointing
    if engine == "deepspeed":
        return DeepSpeedEngine(model, optimizer(groups), settings, rows, universal)
    return TorchEngine(model, optimizer(groups), ranks, clip=settings["gradient_clipping"])


def _averaged(engine: Engine, config: TrainConfig, loop: LoopConfig, ranks: Ranks) -> Engine:
    """The engine, around which the mean of its last weights is kept if that is configured."""
    if config.average_from >= 1:
        return engine
    # Layers that rest are as they were drawn: a mean with these in it would be of no training.
    start = int(loop.steps * max(config.average_from, loop.layers_from))
    return AveragedEngine(engine, ranks, start=start, steps=loop.steps)


def _plan(manifest: Manifest, reader: TrainingReader, loop: LoopConfig, encoder: Encoder, clipping: float) -> str:
    return (
        f"{manifest.rows('pairs')} pairs, {manifest.rows('titles')} titles; {loop.steps} steps of {reader.ranks.world} x "
        f"({reader.batch} pairs + {reader.crops} crops), {reader.steps_per_epoch} an epoch; "
        f"{sum(p.numel() for p in encoder.parameters()) / 1e6:.1f} million parameters in reach; "
        f"{f'gradients are clipped at a norm of {clipping:g}' if clipping else 'no gradient clipping'}"
    )


def training_settings(
    config: TrainConfig,
    chosen: Preset,
    reader: TrainingReader,
    loop: LoopConfig,
    ranks: Ranks,
    precision: Chosen,
    engine: EngineName,
) -> dict[str, Any]:
    """All that the result depends on beside the dataset, by name; what a checkpoint must have to be gone on from."""
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


def _flat(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted names, so that each that differs has a line of its own."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(f"{name}.{key}", value) if isinstance(value, Mapping) else {f"{name}.{key}": value}
    return found
