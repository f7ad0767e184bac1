"""Our trainer on a dataset of :mod:`benchmarks.speed.training_data`, a step whenever it is asked for (see pacing)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.speed.pacing import pause
from benchmarks.speed.training_data import DS
from etl.dataset import verify
from etl.tokenizer import load_tokenizer
from model.encoder import Encoder
from model.fit import fit
from model.inference import embed
from model.packing import tokenised
from model.precision import Chosen
from model.reader import Batch
from model.shares import smallest_share
from model.train_config import TrainConfig

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
    device: Literal["cpu", "cuda"] = "cpu"
    encode: str = ""
    """JSON file with two lists of texts to encode in the end; none unless given."""


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    config = TrainConfig(
        root=task.root,
        ds=DS,
        preset=task.preset,
        batch=task.batch,
        crops=task.crops,
        cache_texts=task.cache_texts,
        precision=task.precision,
        query_word_dropout=0.0,
    )
    manifest = verify(config.dataset)
    # Half a step more than asked for is that many, whichever way the division is rounded.
    epochs = (task.steps + 0.5) / (smallest_share(manifest, "pairs", 1) // task.batch)
    fitted = fit(config.model_copy(update={"epochs": epochs}), manifest, device=task.device, pace=paced)
    if task.encode:
        encode(fitted.encoder, config.dataset, Path(task.encode))


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
