"""Titles encoded a second: ours beside sentence-transformers' `encode` on the same weights, texts and machine.

6 layers x 512 on WordPiece, untrained; made-up titles as in `benchmarks.training`. Both tokenise, and both leave float32
vectors on the CPU; chunks in turn, medians. CPU seconds, on a GPU seconds. The other side runs in an environment of its
own: `make benchmarks-setup`. The row "checked" holds the least cosine between both sides' vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from rich.table import Table

from benchmarks.encoding_worker import Task
from benchmarks.pacing import Paced, interval, race
from benchmarks.training import THEIRS
from benchmarks.training_data import DS, made_up
from etl.errors import InputError
from labeling.machine import hardware
from labeling.terminal import console
from model.bundle import write_bundle
from model.fit import draw
from model.launch import environment
from model.presets import PRESETS

WARM_UP = 2
CHUNK = {"cpu": 2_048, "cuda": 16_384}


def encode(args: argparse.Namespace, root: Path) -> Table:
    """The table of both sides, in fp32 and on request in bf16.

    Raises:
        InputError: the environment of sentence-transformers is not there.
    """
    if not THEIRS.is_file():
        raise InputError(f"{THEIRS} is not there: run `make benchmarks-setup`, and this from the root of the checkout")
    chunk, steps = args.chunk or CHUNK[args.device], args.steps + WARM_UP
    pairs, tokenizer = made_up(chunk * steps)
    (root / "titles.json").write_text(json.dumps(pairs.titles), encoding="utf-8")
    encoder = draw(PRESETS["published"].encoder, 1)
    path = write_bundle(root / "bundles", encoder, tokenizer, ds=DS, metrics={}, lineage={})
    sides = {"sentence-transformers": THEIRS, "ours": Path(sys.executable)}
    runs: dict[str, Paced] = {}
    out: dict[str, Path] = {}
    for precision in args.precision:
        for side, python in sides.items():
            name = f"{side}, {precision}"
            module = "sentence_transformers_encoding" if side != "ours" else "encoding_worker"
            out[name] = root / f"{len(out)}.npy"
            task = Task(str(path), str(root / "titles.json"), str(out[name]), chunk, args.device, precision, 1)
            worker = str(Path(__file__).with_name(f"{module}.py"))
            argv = [str(python), worker] if side != "ours" else [str(python), "-m", f"benchmarks.{module}"]
            variables = environment(1, args.device, local=True) if side == "ours" else os.environ
            runs[name] = Paced(argv, asdict(task), variables)
    found = race(runs, steps, WARM_UP)
    unit = "CPU s" if args.device == "cpu" else "s"
    table = Table("encoder", f"titles a {unit}", "relative", "checked", title=f"chunks of {chunk:,} titles, {hardware()}")
    first = next(iter(found))
    for name, seconds in found.items():
        base = found[f"sentence-transformers, {name.split(', ')[1]}"]
        ratio, low, high = interval(base, seconds)
        cosine = float((np.load(out[name]) * np.load(out[first])).sum(axis=1).min())
        rate = f"{chunk / median(seconds):,.0f}"
        table.add_row(name, rate, f"{ratio:.2f} ({low:.2f} to {high:.2f})", f"{cosine:.5f}")
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoding", description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=5, help="measured chunks of each side (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (default: cpu)")
    parser.add_argument("--chunk", type=int, help="titles of a chunk (default: 2,048 on a CPU, 16,384 on a GPU)")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32"], help="(default: fp32)")
    args = parser.parse_args(argv)
    with TemporaryDirectory() as directory:
        table = encode(args, Path(directory))
    console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
