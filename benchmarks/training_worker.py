"""Our trainer on a dataset of :mod:`benchmarks.training_data`, all of it, a step whenever it is asked for (see pacing)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.pacing import pause
from benchmarks.training_data import DS
from etl.dataset import verify
from etl.tokenizer import load_tokenizer
from model.compact import compact, expand
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.engines import TorchEngine, optimizer, parameter_groups
from model.fit import deterministic, draw
from model.inference import embed
from model.known import KnownPairs
from model.packing import tokenised
from model.precision import Chosen, autocast
from model.ranks import Ranks
from model.reader import Batch, TrainingReader
from model.train_config import TrainConfig
from model.trainer import LoopConfig, train

SIDES: tuple[Literal["query"], Literal["title"]] = ("query", "title")


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What to train."""

    root: str
    """Warehouse with the dataset."""
    preset: Literal["published", "bag"]
    batch: int
    steps: int
    threads: int
    crops: float = 0.0
    cache_texts: int = 0
    precision: Chosen = "fp32"
    encode: str = ""
    """JSON file with two lists of texts to encode in the end; none unless given."""


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    config = TrainConfig(root=task.root, ds=DS, preset=task.preset, batch=task.batch, crops=task.crops)
    manifest = verify(config.dataset)
    preset = config.chosen_preset(manifest)
    full = draw(preset.encoder, config.seed)
    reader = TrainingReader(config.dataset, manifest, replace(config.reader(preset), query_word_dropout=0.0), Ranks())
    if reader.batch != task.batch:
        raise SystemExit(f"the dataset is too small for batches of {task.batch} pairs")
    small, used = full, None
    if reader.table is not None:
        small, reader.table, used = compact(full, reader.table)
    deterministic(config.seed)
    model = DualEncoder(small, preset.tau, autocast=autocast(task.precision, "cpu")).train()
    groups = parameter_groups(model, lr=preset.lr, weight_lr=preset.weight_lr, layers_lr=preset.layers_lr)
    engine = TorchEngine(model, optimizer(groups), Ranks())
    loop = LoopConfig(steps=task.steps, warmup=config.warmup, cache_texts=task.cache_texts)
    known = KnownPairs.load(config.dataset, manifest)
    train(engine, paced(reader.batches(task.steps)), loop, Ranks(), known)
    if task.encode:
        encode(expand(full, engine.weights(), used), config.dataset, Path(task.encode))


def paced(batches: Iterable[Batch]) -> Iterator[Batch]:
    """A pause before each batch is read, and one when the step of the last is done."""
    source = iter(batches)
    while True:
        pause()
        batch = next(source, None)
        if batch is None:
            return
        yield batch


def encode(encoder: Encoder, dataset: Path, wanted: Path) -> None:
    """Vectors of the texts in that file, beside it."""
    tokenizer = load_tokenizer(dataset)
    texts = json.loads(wanted.read_text(encoding="utf-8"))
    for side in SIDES:
        np.save(wanted.with_name(f"ours-{side}.npy"), embed(encoder, *tokenised(tokenizer, texts[side], side)))


if __name__ == "__main__":
    main()
