"""Titles encoded a second: ours beside sentence-transformers' `encode` and other engines, on the same weights and titles.

6 layers x 512 on WordPiece, untrained, and made-up titles as in `benchmarks.speed.training`; or a Hugging Face BERT and Home
Depot's titles: cosines of int8 count on trained weights only, since untrained ones make all titles alike. Everybody
tokenises, and leaves float32 vectors on the CPU; chunks in turn, medians. CPU seconds, on a GPU seconds. The others run in
an environment of their own: `make benchmarks-setup`. "least cosine" is that to the vectors of the first row.
All processes stay in memory, 1 GB each; --sides takes some of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from rich.table import Table

from benchmarks.speed.encoding_worker import Task
from benchmarks.speed.pacing import Paced, interval, race
from benchmarks.speed.training import THEIRS
from benchmarks.speed.training_data import DS, WORDPIECE, home_depot, made_up
from etl.bert_tokenizer import bert_tokenizer
from etl.errors import InputError
from labeling.machine import hardware
from labeling.terminal import console
from model.bundle import write_bundle
from model.encoder import Encoder
from model.fit import draw
from model.launch import environment
from model.presets import PRESETS
from model.pretrained import Pretrained

WARM_UP = 2
CHUNK = {"cpu": 2_048, "cuda": 16_384}
OURS = "ours"
WORKERS = {"sentence-transformers": "sentence_transformers_encoding", OURS: "encoding_worker"}
"""Module of each side; what is not here is an engine of :mod:`benchmarks.speed.engines_encoding`."""
SIDES = {
    "fp32": ("sentence-transformers", "openvino", OURS),
    "bf16": ("sentence-transformers", "openvino", OURS),
    "int8": ("openvino", "onnxruntime", "torch", "torchao", OURS),
}
EVERYBODY = tuple(dict.fromkeys(side for sides in SIDES.values() for side in sides))


def encode(args: argparse.Namespace, root: Path) -> Table:
    """The table of all sides, in the precisions asked for.

    Raises:
        InputError: the environment of the others is not there, or Home Depot's titles are too few.
    """
    if not THEIRS.is_file():
        raise InputError(f"{THEIRS} is not there: run `make benchmarks-setup`, and this from the root of the checkout")
    chunk, steps = args.chunk or CHUNK[args.device], args.steps + WARM_UP
    bundle = prepare(args, root, chunk * steps)
    runs: dict[str, Paced] = {}
    out: dict[str, Path] = {}
    for precision in args.precision:
        for side in SIDES[precision]:
            if side not in args.sides or (side not in WORKERS and args.device != "cpu"):
                continue
            name = f"{side}, {precision}"
            out[name] = root / f"{len(out)}.npy"
            task = Task(str(bundle), str(root / "titles.json"), str(out[name]), chunk, args.device, precision, 1)
            runs[name] = start(side, replace(task, engine="" if side in WORKERS else f"{side}-{precision}"))
    found = race(runs, steps, WARM_UP)
    cosines = {name: least_cosine(np.load(out[name]), np.load(out[next(iter(out))])) for name in out}
    return shown(found, cosines, f"{OURS}, {args.precision[0]}", chunk, "CPU s" if args.device == "cpu" else "s")


def prepare(args: argparse.Namespace, root: Path, count: int) -> Path:
    """Lay down a bundle, whose directory is returned, and ``count`` titles in ``titles.json``.

    Raises:
        InputError: there are fewer of Home Depot's.
    """
    made, tokenizer = made_up(count)
    titles, encoder = made.titles, draw(PRESETS["published"].encoder, 1)
    if args.data:
        titles = home_depot(args.data).titles[:count]
        if len(titles) < count:
            raise InputError(f"{args.data} has {len(titles)} titles, {count} are asked for: lower --chunk or --steps")
    if args.model:
        pretrained = Pretrained.read(args.model)
        encoder = Encoder(pretrained.config)
        pretrained.load_into(encoder)
        tokenizer = bert_tokenizer(args.model, replace(WORDPIECE, rows=pretrained.config.rows))
    (root / "titles.json").write_text(json.dumps(titles), encoding="utf-8")
    return write_bundle(root / "bundles", encoder, tokenizer, ds=DS, metrics={}, lineage={})


def start(side: str, task: Task) -> Paced:
    """The process of one side."""
    module = WORKERS.get(side, "engines_encoding")
    if side == OURS:
        variables = environment(1, task.device, local=True)
        return Paced([sys.executable, "-m", f"benchmarks.speed.{module}"], asdict(task), variables)
    return Paced([str(THEIRS), str(Path(__file__).with_name(f"{module}.py"))], asdict(task), os.environ)


def least_cosine(vectors_ND: np.ndarray, reference_ND: np.ndarray) -> float:
    """Of unit vectors, to those in the same places."""
    return float((vectors_ND * reference_ND).sum(axis=1).min())


def shown(found: Mapping[str, Sequence[float]], cosines: Mapping[str, float], base: str, chunk: int, unit: str) -> Table:
    """Rates, and how they compare to that of ``base``."""
    title = f"chunks of {chunk:,} titles, {hardware()}"
    table = Table("encoder", f"titles a {unit}", f"of {base} (95%)", "least cosine", title=title)
    for name, seconds in found.items():
        ratio, low, high = interval(found[base], seconds)
        rate = f"{chunk / median(seconds):,.0f}"
        table.add_row(name, rate, f"{ratio:.2f} ({low:.2f} to {high:.2f})", f"{cosines[name]:.6f}")
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.encoding", description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=5, help="measured chunks of each side (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (default: cpu)")
    parser.add_argument("--chunk", type=int, help="titles of a chunk (default: 2,048 on a CPU, 16,384 on a GPU)")
    parser.add_argument("--precision", nargs="+", choices=tuple(SIDES), default=["fp32"], help="(default: fp32)")
    parser.add_argument("--sides", nargs="+", choices=EVERYBODY, default=EVERYBODY, help="(default: all; ours always)")
    parser.add_argument("--model", type=Path, help="directory of a Hugging Face BERT (default: untrained, 6 layers x 512)")
    parser.add_argument("--data", help="directory of Home Depot's data, for its titles (default: made-up ones)")
    args = parser.parse_args(argv)
    args.sides = {OURS, *args.sides}
    with TemporaryDirectory() as directory:
        table = encode(args, Path(directory))
    console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
