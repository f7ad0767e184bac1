"""Time and peak memory of the contrastive loss, forward and back: ours beside the plain one that holds every logit.

Each measurement is a process of its own, in turn. The last row is one rank's share of a step whose columns come from all
ranks: 2,048 rows against 131,072 columns on either side, 512 wide.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from rich.table import Table
from torch.nn import functional as F

from labeling.machine import hardware
from labeling.terminal import console
from model.loss import Rows, contrastive_loss
from model.matches import Matches
from model.ranks import Ranks
from model.tiled_cross_entropy import Excluded, Tile, tiled_cross_entropy

SIZES = (4_096, 8_192, 16_384)
SHARE = (2_048, 131_072, 512)
ROUNDS = 3
DIM = 256


def plain(size: int) -> None:
    """InfoNCE in the usual three lines, each half with its matrix of logits."""
    query, title = (F.normalize(torch.randn(size, DIM), dim=1).requires_grad_() for _ in range(2))
    logits, own = query @ title.T / 0.1, torch.arange(size)
    ((F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2).backward()


def ours(size: int) -> None:
    ids = np.arange(size)
    rows = Rows(ids, ids, np.ones(size), np.zeros(size), np.zeros(size))
    query, title = (F.normalize(torch.randn(size, DIM), dim=1).requires_grad_() for _ in range(2))
    contrastive_loss(query, title, rows, tau=0.1, ranks=Ranks()).loss.backward()


def share(_: int) -> None:
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
    sum(losses, start=torch.zeros(())).backward()


WORK = {"plain": plain, "ours": ours, "share": share}


def measure(name: str, size: int) -> dict[str, float]:
    """Seconds and GiB above the interpreter's, in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.speed.contrastive_loss", "--one", name, str(size)]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def one(name: str, size: int) -> None:
    WORK[name if name != "share" else "ours"](64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    WORK[name](size)
    seconds = time.perf_counter() - started
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak}))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.contrastive_loss", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--one", nargs=2, metavar=("WHICH", "SIZE"), help="measure one thing and print it as JSON")
    args = parser.parse_args(argv)
    if args.one:
        one(args.one[0], int(args.one[1]))
        return 0
    table = Table(
        "rows x columns", "plain", "ours", "time", "memory", title=f"contrastive loss, {DIM} wide, on {hardware()}"
    )
    for size in SIZES:
        found = {name: [measure(name, size) for _ in range(ROUNDS)] for name in ("plain", "ours")}
        best = {name: min(row["seconds"] for row in rows) for name, rows in found.items()}
        peak = {name: min(row["peak_gib"] for row in rows) for name, rows in found.items()}
        cells = (f"{best[name]:.2f} s, {peak[name]:.2f} GiB" for name in ("plain", "ours"))
        ratios = (f"{best['ours'] / best['plain']:.2f}", f"{peak['ours'] / peak['plain']:.2f}")
        table.add_row(f"{size:,} x {size:,}", *cells, *ratios)
    found_share = measure("share", 0)
    cell = f"{found_share['seconds']:.1f} s, {found_share['peak_gib']:.2f} GiB"
    table.add_row(f"2 x {SHARE[0]:,} x {SHARE[1]:,}, {SHARE[2]} wide", "not run: 2.1 GiB of logits", cell, "", "")
    console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
