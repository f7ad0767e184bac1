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
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch

from benchmarks.speed.comparison import Comparison, add_results_argument, faster, record
from benchmarks.speed.encoding_worker import Task
from benchmarks.speed.pacing import Paced, race
from benchmarks.speed.peers import THEIRS, require_peers
from benchmarks.speed.training_data import DS, WORDPIECE, home_depot, made_up
from etl.bert_tokenizer import bert_tokenizer
from etl.errors import InputError
from model.bundle import write_bundle
from model.encoder import Encoder
from model.fit import draw
from model.launch import environment
from model.precision import has_amx
from model.presets import PRESETS
from model.pretrained import Pretrained

Precision = Literal["fp32", "bf16", "int8"]
WARM_UP = 1
CHUNK = {"cpu": 512, "cuda": 16_384}
"""Titles. Others pad batches of like length, and need some to choose from: of chunks of 64 they encode 1.5 times the tokens,
of 512 1.08 times, of 2,048 1.02 times; ours packs, and 1.12, 1.05 and 1.04 times."""
OURS = "ours"
ROUNDED = "ours-per-token"
"""In int8: not taken (docs/results.md), and minutes a chunk without VNNI, so only where --sides names it."""
WORKERS = {"sentence-transformers": "sentence_transformers_encoding", OURS: "encoding_worker", ROUNDED: "encoding_worker"}
"""Module of each side; what is not here is an engine of :mod:`benchmarks.speed.engines_encoding`."""
SIDES = {
    "fp32": ("sentence-transformers", "openvino", "onnxruntime", OURS),
    "bf16": ("sentence-transformers", "openvino", OURS),
    "int8": ("openvino", "onnxruntime", "torch", "torchao", ROUNDED),
}
GOALS: Mapping[str, Mapping[str, float]] = {
    "cpu": {
        "sentence-transformers, fp32": 1.0,
        "openvino, fp32": 1.0,
        "onnxruntime, fp32": 1.0,
        "openvino, bf16": 1.1,
    },
    "cuda": {"sentence-transformers, bf16": 3.0},
}
"""Least ratio, by where and beside whom."""
SAME_VECTORS = 0.999
EVERYBODY = tuple(dict.fromkeys(side for sides in SIDES.values() for side in sides))
USUAL = tuple(side for side in EVERYBODY if side != ROUNDED)


def encode(args: argparse.Namespace, root: Path) -> list[Comparison]:
    """Ours beside all sides, in the precisions asked for.

    Raises:
        InputError: the environment of the others is not there, or Home Depot's titles are too few.
    """
    require_peers()
    chunk, steps = args.chunk or CHUNK[args.device], args.steps + WARM_UP
    bundle = prepare(args, root, chunk * steps)
    runs: dict[str, Paced] = {}
    out: dict[str, Path] = {}
    for precision in args.precision or taken(args.device):
        for side in SIDES[precision]:
            if side not in args.sides or (side not in WORKERS and args.device != "cpu"):
                continue
            name = f"{side}, {precision}"
            out[name] = root / f"{len(out)}.npy"
            task = Task(str(bundle), str(root / "titles.json"), str(out[name]), chunk, args.device, precision, 1)
            runs[name] = start(side, replace(task, engine="" if side in WORKERS else f"{side}-{precision}"))
    found = race(runs, steps, WARM_UP)
    cosines = {name: least_cosine(np.load(out[name]), np.load(out[next(iter(out))])) for name in out}
    model = args.model.name if args.model else "6 layers x 512, untrained"
    titles = "Home Depot's titles" if args.data else "made-up titles"
    return compared(found, cosines, chunk, f"{model}, {titles}, chunks of {chunk:,}", args.device) + missing(args.device)


def taken(device: str) -> list[Precision]:
    """Precisions that are worth asking for: bf16 on a CPU where it multiplies matrices of them (AMX), int8 on no GPU."""
    if device == "cuda":
        return ["fp32", "bf16"]
    return ["fp32", "bf16", "int8"] if has_amx() else ["fp32", "int8"]


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
    if module == "encoding_worker":
        variables = environment(1, task.device, local=True)
        return Paced([sys.executable, "-m", f"benchmarks.speed.{module}"], asdict(task), variables)
    return Paced([str(THEIRS), str(Path(__file__).with_name(f"{module}.py"))], asdict(task), os.environ)


def least_cosine(vectors_ND: np.ndarray, reference_ND: np.ndarray) -> float:
    """Of unit vectors, to those in the same places."""
    return float((vectors_ND * reference_ND).sum(axis=1).min())


def compared(
    found: Mapping[str, Sequence[float]], cosines: Mapping[str, float], chunk: int, case: str, device: str
) -> list[Comparison]:
    """Ours in the precision of each other side; fp32 where ours has not run in that one.

    Raises:
        RuntimeError: a side gives other vectors in fp32.
    """
    for name, cosine in cosines.items():
        if name.endswith("fp32") and not cosine >= SAME_VECTORS:
            raise RuntimeError(f"{name}: a cosine of {cosine:.6f} to {next(iter(found))} (expected >= {SAME_VECTORS})")
    rows = []
    for name, seconds in found.items():
        side, precision = name.split(", ")
        if side == OURS:
            continue
        ours = f"{OURS}, {precision}" if f"{OURS}, {precision}" in found else f"{OURS}, fp32"
        rows.append(
            faster(
                "encode",
                f"{case}, one thread, {ours.split(', ')[1]} beside {precision}",
                f"{side} {precision}",
                found[ours],
                seconds,
                check=f"least cosine {cosines[name]:.6f} to {next(iter(found))}",
                goal=GOALS[device].get(name),
                work=chunk,
                unit="titles a CPU s" if device == "cpu" else "titles a s",
            )
        )
    return rows


def missing(device: str) -> list[Comparison]:
    """Rows of what this machine lacks."""
    case, unit = "6 layers x 512, bf16", "titles a s"
    rows = []
    if device == "cpu" and not has_amx():
        rows.append(Comparison("encode", case + " on AMX", "OpenVINO bf16", unit, goal=1.1, not_run="this CPU has no AMX"))
    if not torch.cuda.is_available():
        rows.append(
            Comparison("encode", case + " on a GPU", "sentence-transformers bf16", unit, goal=3.0, not_run="no GPU here")
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.encoding", description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=5, help="measured chunks of each side (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (default: cpu)")
    parser.add_argument("--chunk", type=int, help="titles of a chunk (default: 512 on a CPU, 16,384 on a GPU)")
    parser.add_argument(
        "--precision", nargs="+", choices=tuple(SIDES), help="(default: fp32, int8; with AMX or on a GPU bf16)"
    )
    parser.add_argument("--sides", nargs="+", choices=EVERYBODY, default=USUAL, help="(default: %(default)s; ours always)")
    parser.add_argument("--model", type=Path, help="directory of a Hugging Face BERT (default: untrained, 6 layers x 512)")
    parser.add_argument("--data", help="directory of Home Depot's data, for its titles (default: made-up ones)")
    add_results_argument(parser)
    args = parser.parse_args(argv)
    args.sides = {OURS, *args.sides}
    with TemporaryDirectory() as directory:
        record(encode(args, Path(directory)), args.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
