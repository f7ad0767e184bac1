"""Ten nearest of 100,000 terms: the search that labelling takes here (labeling.nearest) beside faiss and what else is exact.

One process for each number of threads, all searches in turn and each first every other time; median CPU seconds, since
wall clocks of a shared machine measure the others. Vectors are random, or 2,000 clusters as a shop's terms are. The bf16
search (labeling.tiled_search), which is taken with AMX only, has rows of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.speed.comparison import Comparison, add_results_argument, faster, in_turn, record
from labeling.nearest import nearest_in
from labeling.tiled_search import TiledSearch
from model.precision import has_amx

DIM, K, CLUSTERS = 256, 10, 2_000
FAISS, TORCH = "faiss IndexFlatIP", "torch matmul, topk"
CASES = (("random", 1, 1_000), ("clustered", 1, 1_000), ("clustered", 2, 1_000), ("clustered", 1, 256))
"""Kind, threads, vectors at once; in labelling they are 16,384 by the neighbours that are asked for: 372 of 44."""
SAME_PLACES = 0.9999
"""Share of places; products that differ in their last bit may swap two neighbours."""


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


def by_torch(rows_FD: np.ndarray, asked_ND: np.ndarray) -> np.ndarray:
    """All products, then the K largest of each, best first."""
    scores_NF = torch.from_numpy(asked_ND) @ torch.from_numpy(rows_FD).T
    return scores_NF.topk(K, dim=1).indices.numpy()


def one(kind: str, terms: int, queries: int, threads: int, rounds: int, at_once: int) -> None:
    """Print as JSON the CPU seconds of each search in each round, and the share of places equal to faiss'.

    ``at_once`` vectors are given to a search at a time, as labelling has them in chunks of its items.
    """
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    rows, asked = vectors(kind, terms, queries)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(rows)
    as_installed = faiss.cvar.distance_compute_blas_threshold
    ours = nearest_in(rows)
    by_product = faiss.cvar.distance_compute_blas_threshold
    searches: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        FAISS: lambda some: flat.search(some, K)[1],
        TORCH: lambda some: by_torch(rows, some),
        "ours": lambda some: ours(some, K),
    }
    if has_amx():
        tiled = TiledSearch(rows)
        searches["tiled"] = lambda some: tiled.nearest(some, K)

    def all_of(name: str) -> np.ndarray:
        faiss.cvar.distance_compute_blas_threshold = as_installed if name == FAISS else by_product
        parts = [asked[start : start + at_once] for start in range(0, len(asked), at_once)]
        return np.concatenate([searches[name](part) for part in parts])

    seconds, found = in_turn({name: partial(all_of, name) for name in searches}, rounds, clock=time.process_time)
    equal = {name: float((found[name] == found[FAISS]).mean()) for name in searches}
    print(json.dumps({"seconds": seconds, "equal": equal}))


def compared(found: Mapping[str, Any], case: str, queries: int) -> list[Comparison]:
    """What labelling takes beside faiss and torch, and the search by bf16 tiles beside faiss, where it is taken.

    Raises:
        RuntimeError: a search found others than faiss' flat index.
    """
    for name, equal in found["equal"].items():
        if not equal >= SAME_PLACES:
            raise RuntimeError(f"{name} has {equal:.5f} of the places of faiss (expected >= {SAME_PLACES}): not comparable")
    rows = []
    # Without AMX ours is that index, told to multiply matrices: level at a thousand at once, so no goal.
    for side, peer, goal in (("ours", FAISS, None), ("ours", TORCH, 1.0), ("tiled", FAISS, 1.8)):
        if side not in found["seconds"]:
            continue
        seconds, bf16 = found["seconds"], ", by bf16 tiles" if side == "tiled" else ""
        check = f"equal places {found['equal'][side]:.5f}"
        rows.append(
            faster(
                "topk", case + bf16, peer, seconds[side], seconds[peer], check=check, goal=goal, work=queries,
                unit="queries a CPU s",
            )
        )  # fmt: skip
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    prog = "python -m benchmarks.speed.term_search"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, allow_abbrev=False)
    parser.add_argument("--terms", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--queries", type=int, default=1_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "THREADS", "AT_ONCE"), help="measure one case and print it")
    add_results_argument(parser)
    args = parser.parse_args(argv)
    if args.one:
        one(args.one[0], args.terms, args.queries, int(args.one[1]), args.rounds, int(args.one[2]))
        return 0
    rows = []
    for kind, threads, at_once in CASES:
        sizes = [f"--{name}={getattr(args, name)}" for name in ("terms", "queries", "rounds")]
        line = [sys.executable, "-m", "benchmarks.speed.term_search", *sizes, "--one", kind, str(threads), str(at_once)]
        # Threads that spin while they wait would be counted as work.
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(line, env=env, stdout=subprocess.PIPE, text=True, check=True)
        case = (
            f"{K} of {args.terms:,} {kind} vectors, {DIM} wide, {at_once:,} at once, {threads} thread{'s' * (threads > 1)}"
        )
        rows += compared(json.loads(done.stdout), case, args.queries)
    if not has_amx():
        case = f"{K} of {args.terms:,} vectors, by bf16 tiles with AMX"
        rows.append(Comparison("topk", case, FAISS, "queries a CPU s", goal=1.8, not_run="this CPU has no AMX"))
    if not faiss.get_num_gpus():
        case = f"{K} of {args.terms:,} vectors, on a GPU"
        rows.append(Comparison("topk", case, FAISS, "queries a s", not_run="no GPU here"))
    record(rows, args.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
