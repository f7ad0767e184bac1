"""Training speed of our trainer beside that of sentence-transformers, on the same model, pairs, batch and machine.

CPU seconds a step of the whole trainer (reading, tokenising where it is done, forward, back, optimizer), or seconds on a
GPU, medians; all processes take their steps in turn, since a shared machine is not equally fast all the time. The other
side runs in an environment of its own: `make benchmarks-setup`.

Parts: ``encoder`` (the default), 6 layers x 512 on WordPiece from scratch, batch 128, dropout .1 on both sides; ``bag``,
the word-hashed bag beside a StaticEmbedding on Home Depot's pairs, with recall on its unseen queries; ``cached``, GradCache
beside the same batch at once; ``deepspeed``, its engine beside the plain one on two ranks; ``memory``, what ZeRO, activation
checkpointing and half precision save and cost; ``scaling``, the bytes that a step sends and what they make of 5 to 64 nodes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.table import Table
from torch.nn import functional as F

from benchmarks.sets.homedepot_evaluation import measures, relevant_products
from benchmarks.sets.homedepot_judgements import read_judgements, titles_by_product
from benchmarks.speed import deepspeed_worker, scaling, training_deepspeed
from benchmarks.speed.comparison import Comparison, add_results_argument, faster, record
from benchmarks.speed.pacing import Paced, interval, race
from benchmarks.speed.peers import THEIRS
from benchmarks.speed.peers_trainer import theirs
from benchmarks.speed.training_data import (
    WORDHASH,
    Pairs,
    home_depot,
    made_up,
    wordpiece,
    write,
    write_for_others,
)
from benchmarks.speed.training_worker import SIDES, Task
from etl.errors import InputError
from etl.text import normalise
from etl.tokenizer import WordHashTokenizer
from etl.wordpiece import WordPieceTokenizer
from labeling.machine import hardware
from labeling.terminal import console
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.engines import TorchEngine
from model.launch import environment
from model.loss import Rows, contrastive_loss
from model.precision import has_amx
from model.presets import PRESETS
from model.ranks import Ranks
from model.trainer import LoopConfig, contrastive_step

PARTS = ("encoder", "bag", "cached", "deepspeed", "memory", "scaling")
BATCH = 128
LARGER = 512
WARM_UP = 1
DIM = 256
SAME_LOSS = 1e-5
"""Relative, of the same vectors in fp32."""
SAME_GRADIENT = 1e-5
"""Relative L2 between two ways to the same gradient in fp32."""


def ours(task: Task) -> Paced:
    return Paced([sys.executable, "-m", "benchmarks.speed.training_worker"], asdict(task), environment(1, "cpu", local=True))


def texts_of(args: argparse.Namespace) -> tuple[Pairs, WordPieceTokenizer]:
    """Home Depot's where its directory is given, made-up ones otherwise."""
    if args.data is None:
        return made_up((args.batch or BATCH) * 64)
    pairs = home_depot(args.data)
    return pairs, wordpiece(pairs)


def encoder(args: argparse.Namespace, root: Path) -> list[Comparison]:
    """Ours beside sentence-transformers, on one thread and on two; on a GPU in bf16 too."""
    pairs, tokenizer = texts_of(args)
    write(root, pairs, tokenizer)
    write_for_others(root, pairs, tokenizer, {})
    some = pairs.clicks[:2048]
    lengths = [np.mean([len(tokenizer.ids(text, "title")) for text in side]) for side in zip(*some, strict=True)]
    texts, batch = "made-up pairs" if args.data is None else "Home Depot's pairs", args.batch or BATCH
    unit = "CPU s" if args.device == "cpu" else "s"
    title = f"6 layers x 512, {texts}, {lengths[0]:.1f} + {lengths[1]:.1f} tokens, batch {batch}"
    check, rows = same_loss(root), []
    steps = args.steps + WARM_UP
    for threads in args.threads:
        common = {"batch": batch, "steps": steps, "threads": threads, "device": args.device}
        mine = common | {"root": str(root), "preset": "published"}
        runs = {
            "sentence-transformers, fp32": theirs(root, **common),
            "ours, fp32": ours(Task(**mine)),
        }
        if args.all:
            runs["sentence-transformers, fp32, cached loss"] = theirs(root, **common, loss="cached")
        if args.all or args.device == "cuda":
            runs["sentence-transformers, bf16"] = theirs(root, **common, bf16=True)
            runs["ours, bf16"] = ours(Task(**mine, precision="bf16"))
        found = race(runs, steps, WARM_UP)
        for name, seconds in found.items():
            if name.startswith("ours"):
                continue
            precision = name.split(", ")[1]
            rows.append(
                faster(
                    "train",
                    f"{title}, {precision}, {threads} thread{'s' * (threads > 1)}",
                    f"trainer of {name.replace(f', {precision}', '')}",
                    found[f"ours, {precision}"],
                    seconds,
                    check=check,
                    goal={"cpu": 2.0, "cuda": 3.0}[args.device],
                    work=batch,
                    unit=f"pairs a {unit}",
                )
            )
    for where, goal, missing in (
        ("bf16 on AMX", 2.0, args.device == "cpu" and not has_amx() and "this CPU has no AMX"),
        ("bf16 on a GPU", 3.0, not torch.cuda.is_available() and "no GPU here"),
    ):
        if missing:
            peer = "trainer of sentence-transformers"
            rows.append(Comparison("train", f"{title}, {where}", peer, "pairs a s", goal=goal, not_run=missing))
    return rows


def same_loss(root: Path) -> str:
    """Compare the loss of the same vectors, ours and that of sentence-transformers; each title lies near its query.

    Raises:
        RuntimeError: they differ by more than fp32's rounding.
    """
    query, noise = (F.normalize(torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(n)), dim=1) for n in (1, 2))
    title = F.normalize(query + noise, dim=1)
    np.save(root / "query.npy", query.numpy())
    np.save(root / "title.npy", title.numpy())
    tau, ids = PRESETS["published"].tau, np.arange(BATCH)
    rows = Rows(ids, ids, np.ones(BATCH), np.zeros(BATCH), np.zeros(BATCH))
    found = contrastive_loss(query, title, rows, tau=tau, ranks=Ranks()).loss.item()
    script = Path(__file__).with_name("sentence_transformers_loss.py")
    done = subprocess.run([str(THEIRS), str(script), str(root), str(tau)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the loss of sentence-transformers cannot be asked for:\n{done.stderr[-2000:]}")
    other = float(done.stdout.splitlines()[-1])
    if not abs(found - other) <= SAME_LOSS * abs(other):
        raise RuntimeError(f"the losses of the same vectors are {found} and {other} (expected: within {SAME_LOSS:g})")
    return f"losses of the same vectors {abs(found - other) / abs(other):.0e} apart"


def bag(args: argparse.Namespace, root: Path) -> list[Comparison]:
    """The word-hashed bag beside a StaticEmbedding: pairs a CPU second, and recall on Home Depot's unseen queries."""
    if args.data is None:
        raise InputError("the part `bag` is measured on Home Depot: give --data its directory")
    pairs, judgements = home_depot(args.data), read_judgements(args.data)
    relevant, titles = relevant_products(judgements), titles_by_product(judgements)
    encode = {"query": list(map(normalise, relevant)), "title": list(map(normalise, titles.values()))}
    write_for_others(root / "theirs", pairs, wordpiece(pairs), encode)
    (root / "encode.json").write_text(json.dumps(encode), encoding="utf-8")
    made = write(root / "ours", pairs, WordHashTokenizer(WORDHASH))
    batch, epochs = args.batch or LARGER, args.epochs
    steps = len(pairs.clicks) // batch * epochs
    runs = {
        f"StaticEmbedding, {args.static_dim} wide, lr {args.static_lr:g}": theirs(
            root / "theirs",
            steps=steps,
            threads=1,
            batch=batch,
            tau=PRESETS["bag"].tau,
            lr=args.static_lr,
            model="static",
            dim=args.static_dim,
        ),
        f"ours, {PRESETS['bag'].encoder.dim} wide, {args.crops:g} crops a pair": ours(
            Task(
                root=str(root / "ours"),
                preset="bag",
                batch=batch,
                steps=steps,
                threads=1,
                crops=args.crops,
                encode=str(root / "encode.json"),
            )
        ),
    }
    found = race(runs, steps, WARM_UP)
    gold = [np.isin(list(titles), list(products)) for products in relevant.values()]
    recalls = {}
    for name, directory in zip(found, (root / "theirs", root), strict=True):
        side = "static" if name.startswith("Static") else "ours"
        queries, corpus = (np.load(directory / f"{side}-{s}.npy") for s in SIDES)
        blocks = (queries[start : start + BATCH] @ corpus.T for start in range(0, len(queries), BATCH))
        scores = (row for block in blocks for row in block)
        recalls[name] = np.mean([measures(row, wanted) for row, wanted in zip(scores, gold, strict=True)], axis=0)
    theirs_name, ours_name = found
    # Of tokenising and writing the dataset, which theirs does in its steps, each step bears its share.
    whole = [seconds + made / len(found[ours_name]) for seconds in found[ours_name]]
    case = f"{ours_name}, Home Depot's pairs, {epochs} epochs, batch {batch}, one thread"
    check = no_worse(recalls[ours_name], recalls[theirs_name])
    return [
        faster(
            "train-bag",
            case,
            theirs_name,
            whole,
            found[theirs_name],
            check=check,
            goal=2.0,
            work=batch,
            unit="pairs a CPU s",
        )
    ]


def no_worse(ours_found: Sequence[float], theirs_found: Sequence[float]) -> str:
    """Both sides' recall@10, recall@100 and MRR@10.

    Raises:
        RuntimeError: ours has the lower recall@10, so that its speed says nothing.
    """
    shown = "R@10 {:.3f}, R@100 {:.3f}, MRR@10 {:.3f}"
    ours_shown, theirs_shown = shown.format(*ours_found), shown.format(*theirs_found)
    if ours_found[0] < theirs_found[0]:
        raise RuntimeError(f"ours recalls less: {ours_shown}, theirs {theirs_shown}: its speed is not comparable")
    return f"{ours_shown}; theirs {theirs_shown}"


def gradient_distance(texts: int) -> float:
    """Relative L2 between the gradients of GradCache in parts of ``texts`` and of the batch at once, dropout off."""
    config = replace(PRESETS["published"].encoder, dropout=0.0)
    model = DualEncoder(Encoder(config), PRESETS["published"].tau).train()
    engine = TorchEngine(model, torch.optim.SGD(model.parameters()), Ranks())
    task = deepspeed_worker.Task(stages=[], encoder=config.to_json(), batch=texts, steps=1, out="")
    found = []
    for at_once in (0, texts):
        loop = LoopConfig(steps=1, cache_texts=at_once)
        _, backward = contrastive_step(engine, deepspeed_worker.batch(task, 0, Ranks()), loop, Ranks(), None)
        backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        model.zero_grad()
    return float((found[1] - found[0]).norm() / found[0].norm())


def cached(args: argparse.Namespace, root: Path) -> Table:
    """GradCache in four parts beside the same batch at once."""
    distance = gradient_distance(32)
    if distance > SAME_GRADIENT:
        raise RuntimeError(f"GradCache's gradient is {distance:.1e} off the batch's at once (expected <= {SAME_GRADIENT:g})")
    write(root, *texts_of(args))
    steps, batch = args.steps + WARM_UP, args.batch or LARGER
    task = {"root": str(root), "preset": "published", "batch": batch, "steps": steps, "threads": args.threads[0]}
    runs = {name: ours(Task(**task, cache_texts=texts)) for name, texts in (("at once", 0), ("cached", batch // 2))}
    found = race(runs, steps, WARM_UP)
    title = f"batch {batch}, parts of {batch // 4} pairs, gradients {distance:.0e} apart, on {hardware()}"
    table = Table("step", "CPU s", "of at once", title=title)
    for name, seconds in found.items():
        ratio, low, high = interval(seconds, found["at once"])
        table.add_row(name, f"{median(seconds):.2f}", f"{ratio:.2f} ({low:.2f} to {high:.2f})")
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.training", description=__doc__, allow_abbrev=False)
    parser.add_argument("part", nargs="?", choices=PARTS, default="encoder")
    parser.add_argument("--data", help="directory with Home Depot's train.csv.gz; made-up pairs unless given")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each trainer (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads, one after the other")
    parser.add_argument("--all", action="store_true", help="encoder: cached loss and bf16 too")
    parser.add_argument("--batch", type=int, help=f"pairs a step (default: {BATCH}; bag, cached: {LARGER})")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="encoder, memory: where (default: cpu)")
    parser.add_argument("--epochs", type=int, default=6, help="bag: passes over the pairs (default: %(default)s)")
    parser.add_argument("--crops", type=float, default=0.5, help="bag: ours, crops a pair (default: %(default)s)")
    parser.add_argument("--static-dim", type=int, default=256, help="bag: StaticEmbedding's width (default: %(default)s)")
    parser.add_argument("--static-lr", type=float, default=2e-2, help="bag: StaticEmbedding's rate (default: %(default)s)")
    add_results_argument(parser)
    args = parser.parse_args(argv)
    parts = {"encoder": encoder, "bag": bag}
    with TemporaryDirectory() as directory:
        if args.part in parts:
            record(parts[args.part](args, Path(directory)), args.results)
            return 0
        if args.part == "deepspeed":
            table = training_deepspeed.overhead(Path(directory), args.steps)
        elif args.part == "memory":
            table = training_deepspeed.memory(Path(directory), args.steps, args.device, args.batch or BATCH)
        elif args.part == "scaling":
            table = scaling.scaling_table()
        else:
            table = cached(args, Path(directory))
    console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
