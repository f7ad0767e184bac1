"""Our encoder on chunks of titles, one whenever it is asked for (see pacing)."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.speed.int8_linear import quantise
from benchmarks.speed.pacing import pause
from model.bundle import load_bundle
from model.precision import autocast


@dataclass(frozen=True, slots=True)
class Task:
    """What to encode."""

    bundle: str
    titles: str
    """JSON file with a list of them."""
    out: str
    """Gets the vectors of the first chunk."""
    chunk: int
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "int8"]
    threads: int
    engine: str = ""
    """For :mod:`benchmarks.speed.engines_encoding`: which one."""


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    bundle = load_bundle(Path(task.bundle), task.device)
    if task.precision == "int8":
        quantise(bundle.encoder)
    titles = json.loads(Path(task.titles).read_text(encoding="utf-8"))
    for start in range(0, len(titles), task.chunk):
        pause()
        with autocast("bf16" if task.precision == "bf16" else "fp32", task.device)():
            vectors = bundle.encode(titles[start : start + task.chunk], "title")
        if not start:
            np.save(task.out, vectors)
    pause()


if __name__ == "__main__":
    main()
