"""Time and peak memory of the contrastive loss, forward and back.

Ours beside the plain one that holds every logit, and beside the one that takes blocks of rows and makes their logits again
in the backward pass.

Each measurement is a process of its own, in turn. What is printed last is no comparison: one rank's share of a step whose
columns come from all ranks, 2,048 rows against 131,072 columns on either side, 512 wide.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.speed.comparison import Comparison, add_results_argument, faster, record
from labeling.terminal import console
from model.loss import Rows, contrastive_loss
from model.matches import Matches
from model.ranks import Ranks
from model.tiled_cross_entropy import Excluded, Tile, tiled_cross_entropy

SIZES = (4_096, 8_192, 16_384)
SHARE = (2_048, 131_072, 512)
TURNS, WARM_UP = 5, 1
DIM = 256
PEERS = {
    "plain": "InfoNCE in three lines of torch, all logits held",
    "blocks": "InfoNCE in blocks of 1,024 rows under torch.utils.checkpoint",
}
MEMORY_GOAL = {"plain": 4.0, "blocks": None}
BLOCK = 1_024
SAME_LOSS = 1e-5
"""Relative, of fp32 sums of so many terms."""


def plain(size: int) -> float:
    """InfoNCE in the usual three lines, each half with its matrix of logits; as of the others, the loss is returned."""
    query, title = (F.normalize(torch.randn(size, DIM), dim=1).requires_grad_() for _ in range(2))
    logits, own = query @ title.T / 0.1, torch.arange(size)
    loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    loss.backward()
    return loss.item()


def blocks(size: int) -> float:
    """InfoNCE as who is short of memory writes it: the logits of a block of rows are dropped, and made again going back."""
    query, title = (F.normalize(torch.randn(size, DIM), dim=1).requires_grad_() for _ in range(2))

    def half(x: torch.Tensor, y: torch.Tensor, start: int) -> torch.Tensor:
        rows = x[start : start + BLOCK]
        return F.cross_entropy(rows @ y.T / 0.1, torch.arange(start, start + len(rows)), reduction="sum")

    parts = [
        checkpoint(half, x, y, start, use_reentrant=False)
        for x, y in ((query, title), (title, query))
        for start in range(0, size, BLOCK)
    ]
    loss = torch.stack(parts).sum() / (2 * size)
    loss.backward()
    return loss.item()


def ours(size: int) -> float:
    ids = np.arange(size)
    rows = Rows(ids, ids, np.ones(size), np.zeros(size), np.zeros(size))
    query, title = (F.normalize(torch.randn(size, DIM), dim=1).requires_grad_() for _ in range(2))
    loss = contrastive_loss(query, title, rows, tau=0.1, ranks=Ranks()).loss
    loss.backward()
    return loss.item()


def share(_: int) -> float:
    """Both sides of one rank of 64."""
    rows, columns, dim = SHARE
    ids, all_ids = torch.arange(rows), torch.arange(columns)
    none = Matches(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    losses = []
    for _side in range(2):
        x = F.normalize(torch.randn(rows, dim), dim=1).requires_grad_()
        y = F.normalize(torch.randn(columns, dim), dim=1).requires_grad_()
        excluded = Excluded(ids, ids, all_ids, all_ids, none)
        own = Matches(np.arange(rows), np.arange(rows))
        losses.append(tiled_cross_entropy(x, y, torch.tensor([10.0]), torch.zeros(columns), own, excluded, Tile()).mean())
    loss = sum(losses, start=torch.zeros(())) / 2
    loss.backward()
    return loss.item()


WORK = {"plain": plain, "blocks": blocks, "ours": ours, "share": share}


def measure(name: str, size: int) -> dict[str, float]:
    """CPU seconds, GiB above the interpreter's, and the loss, in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.speed.contrastive_loss", "--one", name, str(size)]
    # Threads that spin while they wait would be counted as work; as ranks have it (model.launch).
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def one(name: str, size: int) -> None:
    WORK[name if name != "share" else "ours"](64)
    torch.manual_seed(1)
    # Anew from here: the peak that getrusage has is also that of the process which started this one.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = peak_kib()
    started = time.process_time()
    loss = WORK[name](size)
    seconds = time.process_time() - started
    peak = (peak_kib() - before) / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak, "loss": loss}))


def peak_kib() -> int:
    """Most memory that this process has had resident."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def same(ours_loss: float, other_loss: float) -> str:
    """How near the two losses of the same vectors are.

    Raises:
        RuntimeError: further than fp32's rounding.
    """
    distance = abs(ours_loss - other_loss) / abs(other_loss)
    if not distance <= SAME_LOSS:
        raise RuntimeError(f"the losses are {ours_loss} and {other_loss} (expected: within {SAME_LOSS:g}): not comparable")
    return f"losses {distance:.0e} apart"


def compared(size: int) -> list[Comparison]:
    """Time and memory of one size."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("ours", *PEERS)}
    for turn in track(range(TURNS + WARM_UP), f"{size:,} x {size:,}", console=console()):
        for name in list(found)[:: 1 if turn % 2 else -1]:
            found[name].append(measure(name, size))
    case = f"{size:,} x {size:,}, {DIM} wide, fp32, forward and back"
    rows = []
    for name, peer in PEERS.items():
        check = same(found["ours"][-1]["loss"], found[name][-1]["loss"])
        pair = [found[which][WARM_UP:] for which in ("ours", name)]
        costs = {key: [[row[key] for row in turns] for turns in pair] for key in ("seconds", "peak_gib")}
        rows += [
            faster("loss", case, peer, *costs["seconds"], check=check, goal=1.0),
            faster("loss", case, peer, *costs["peak_gib"], check=check, goal=MEMORY_GOAL[name], unit="GiB"),
        ]
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    prog = "python -m benchmarks.speed.contrastive_loss"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, allow_abbrev=False)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="default: %(default)s")
    parser.add_argument("--one", nargs=2, metavar=("WHICH", "SIZE"), help="measure one thing and print it as JSON")
    add_results_argument(parser)
    args = parser.parse_args(argv)
    if args.one:
        one(args.one[0], int(args.one[1]))
        return 0
    record([one for size in args.sizes for one in compared(size)], args.results)
    found = measure("share", 0)
    rows, columns, dim = SHARE
    console().print(
        f"2 x {rows:,} x {columns:,}, {dim} wide, a rank's share of 64: {found['seconds']:.1f} CPU s, "
        f"{found['peak_gib']:.2f} GiB (its logits alone would take 2.1 GiB)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
