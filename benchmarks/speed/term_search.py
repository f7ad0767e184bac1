"""Ten nearest of 100,000 terms: bf16 with an exact second look (labeling.tiled_search) beside faiss' flat index.

One process for each number of threads, both searches in turn and each first every other time; median CPU seconds, since
wall clocks of a shared machine measure the others. Vectors are random, or 2,000 clusters as a shop's terms are. "not run"
where this CPU is another.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import faiss
import numpy as np
import torch
from rich.table import Table

from benchmarks.speed.pacing import interval
from labeling.machine import hardware
from labeling.terminal import console
from labeling.tiled_search import TiledSearch
from model.precision import has_amx

DIM, K, CLUSTERS = 256, 10, 2_000


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def vectors(kind: str, terms: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Terms [terms, DIM] and queries [queries, DIM], unit vectors."""
    draw = np.random.default_rng(1)
    together = draw.normal(size=(terms + queries, DIM))
    if kind == "clustered":  # about .8 to its centre
        centres = draw.normal(size=(CLUSTERS, DIM))
        together = centres[draw.integers(CLUSTERS, size=len(together))] + 0.75 * together
    return unit(together[:terms]), unit(together[terms:])


def one(kind: str, terms: int, queries: int, threads: int, rounds: int) -> None:
    """Print as JSON the CPU seconds of both in each round, and the share of equal places."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    rows, asked = vectors(kind, terms, queries)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(rows)
    tiled = TiledSearch(rows)
    searches: dict[str, Callable[[], np.ndarray]] = {
        "faiss": lambda: flat.search(asked, K)[1],
        "tiled": lambda: tiled.nearest(asked, K),
    }
    found = {name: search() for name, search in searches.items()}
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for turn in range(rounds):
        for name in sorted(searches, reverse=bool(turn % 2)):
            started = time.process_time()
            searches[name]()
            seconds[name].append(time.process_time() - started)
    equal = float((found["faiss"] == found["tiled"]).mean())
    print(json.dumps({**seconds, "equal": equal}))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.term_search", description=__doc__, allow_abbrev=False)
    parser.add_argument("--terms", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--queries", type=int, default=1_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "THREADS"), help="measure one case and print it")
    args = parser.parse_args(argv)
    if args.one:
        one(args.one[0], args.terms, args.queries, int(args.one[1]), args.rounds)
        return 0
    table = Table(
        "vectors", "threads", "faiss flat", "tiled", "ratio (95%)", "equal", title=f"queries a CPU s, {hardware()}"
    )
    for kind in ("random", "clustered"):
        for threads in (1, 2):
            sizes = [f"--{name}={getattr(args, name)}" for name in ("terms", "queries", "rounds")]
            line = [sys.executable, "-m", "benchmarks.speed.term_search", *sizes, "--one", kind, str(threads)]
            # Threads that spin while they wait would be counted as work.
            env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
            done = subprocess.run(line, env=env, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            rates = (f"{args.queries / median(found[name]):,.0f}" for name in ("faiss", "tiled"))
            ratio, low, high = interval(found["faiss"], found["tiled"])
            table.add_row(kind, str(threads), *rates, f"{ratio:.2f} ({low:.2f} to {high:.2f})", f"{found['equal']:.5f}")
    for name, here in (("with AMX", has_amx()), ("with AVX2 only", "avx512" not in hardware() and not has_amx())):
        if not here:
            table.add_row(f"a CPU {name}", "", "not run", "not run", "", "")
    console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
