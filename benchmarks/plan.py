"""A paper plan: what a night of 10^9 clicks, 10^8 items and 10^6 terms would take, from measured rates. None of it has run.

Linear from one machine of two cores up: what is not linear (search of items among items, memory of one process) stands
in the page as what breaks first. Rates that were not measured, those of a GPU, are marked as assumed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.scaling import (
    FLOP_PER_PAIR,
    FLOP_PER_SECOND,
    PARAMETERS,
    StepShape,
    bytes_sent,
    efficiency,
)

CLICKS, ITEMS, TERMS, FORMS, WINDOW_DAYS = 1e9, 1e8, 1e6, 2e6, 14
EVENTS_PER_CLICK = 6.75
"""Of the generated log: 2.1 million events, 311,240 clicks."""
PAIRS_PER_CLICK = 0.28
"""88,039 pairs of the generated window of 311,240 clicks; a made-up log without repetition had .85."""
CHANGED = 0.03
"""Of the titles, from one night to the next."""
DIM = 256
FLOP_PER_TITLE = 29 * 37.75e6
"""Of ``published``, 29 tokens."""
GIGABITS, BATCH = 25, 16_384
NODES = (5, 16, 64)
HEAD = ("stage", "work", "core hours", "GPU hours", "wall", "GB read or written", "")
EXECUTOR_CORES = 512

CORE_SECONDS = {
    # 6 million clicks, two threads: 74.5 s, and 231 s of further parts (docs/results.md, "Cleaning six million clicks").
    "click": 2 * (74.5 + 231) / 6e6,
    # An impression is read, judged with its session and dropped: a quarter of what the generated log's pairs took, 111 s of
    # two cores for 2.1 million events.
    "event": 2 * 111 / 2.1e6 / 4,
    "title": 1 / 634,  # hybrid, one core without AMX (docs/results.md, "The presets beside each other")
    "item searched among 100,000 terms": 1 / 1_386,  # faiss flat, one core with AVX-512 (docs/results.md, "Ten nearest")
    "item written": 2 * 25 / 20_000 / 10,  # scoring and writing 20,000 items, of which some nine tenths are fixed
}
BYTES = {
    # Of the generated shop's tables on disk, compressed Parquet.
    "event": 42.2e6 / 2.10e6,
    "pair": 3.51e6 / 88_039,
    "pair, tokenised": 7.46e6 / 82_131,
    "item_terms": 145 * 1.06,
    "item_categories": 126,
    "labels_current": 95,
    "embedding": 548,
    "similar item": 12.5,
}


@dataclass(frozen=True, slots=True)
class Line:
    """A stage of the night."""

    stage: str
    work: str
    core_hours: float | None = None
    gpu_hours: float | None = None
    moved_gb: float = 0.0
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        wall = ""
        if self.core_hours is not None:
            wall = f"{60 * self.core_hours / EXECUTOR_CORES:,.0f} min on {EXECUTOR_CORES} cores"
        cores = "" if self.core_hours is None else f"{self.core_hours:,.0f}"
        gpus = "" if self.gpu_hours is None else f"{self.gpu_hours:,.1f}"
        return self.stage, self.work, cores, gpus, wall, f"{self.moved_gb:,.0f}", self.note


def hours(unit: str, count: float) -> float:
    return CORE_SECONDS[unit] * count / 3600


def lines() -> list[Line]:
    """The stages with their work."""
    clicks, pairs = CLICKS * WINDOW_DAYS, CLICKS * WINDOW_DAYS * PAIRS_PER_CLICK
    events = clicks * EVENTS_PER_CLICK
    search = CORE_SECONDS["item searched among 100,000 terms"] * FORMS / 1e5
    return [
        Line(
            "pairs", f"{clicks:.1e} clicks, {events:.1e} events of {WINDOW_DAYS} days",
            hours("click", clicks) + hours("event", events - clicks), moved_gb=events * BYTES["event"] / 1e9,
            note="the whole window is cleaned every night",
        ),
        Line(
            "dataset", f"{pairs:.1e} pairs", hours("click", pairs) / 2, moved_gb=pairs * BYTES["pair, tokenised"] / 1e9,
            note="on training nights",
        ),
        Line(
            "train, published", f"{pairs:.1e} pairs, one epoch", gpu_hours=pairs * FLOP_PER_PAIR / FLOP_PER_SECOND / 3600,
            note="on training nights; 316 TFLOP/s a GPU assumed, not measured",
        ),
        Line(
            "embed, all", f"{ITEMS:.0e} titles, hybrid on CPUs", hours("title", ITEMS),
            moved_gb=ITEMS * BYTES["embedding"] / 1e9,
            note="after a new bundle; published on a GPU: "
            f"{ITEMS * FLOP_PER_TITLE / FLOP_PER_SECOND / 60:.0f} GPU minutes (assumed)",
        ),
        Line("embed, changed", f"{CHANGED * ITEMS:.0e} titles", hours("title", CHANGED * ITEMS)),
        Line(
            "predict", f"{ITEMS:.0e} items among {FORMS:.0e} forms", search * ITEMS / 3600 + hours("item written", ITEMS),
            gpu_hours=2 * ITEMS * FORMS * DIM / (FLOP_PER_SECOND / 8) / 3600,
            moved_gb=ITEMS * (BYTES["item_terms"] + BYTES["item_categories"]) / 1e9,
            note="either; all items every night; a GPU at an eighth of its bf16 rate in fp32 (assumed)",
        ),
        Line(
            "audit, publish", f"{ITEMS:.0e} items, {CHANGED:.0%} of them changed", hours("item written", 3 * ITEMS),
            moved_gb=ITEMS * (2 * BYTES["labels_current"] + BYTES["item_terms"] + BYTES["item_categories"]) / 1e9,
            note="MERGE reads the keys of all live rows, and rewrites the files that hold a changed one",
        ),
    ]  # fmt: skip


def step_of(nodes: int) -> StepShape:
    """Of `published`, ZeRO 1 over nccl."""
    return StepShape(world=nodes, batch=BATCH, dim=512, parameters=PARAMETERS, stage=1, reduce_scatter=True)


def training() -> list[tuple[str, ...]]:
    """Nodes of one GPU: hours of an epoch by the share of a step that computes, and what a node sends."""
    pairs = CLICKS * WINDOW_DAYS * PAIRS_PER_CLICK
    rows: list[tuple[str, ...]] = []
    for nodes in NODES:
        shape = step_of(nodes)
        share, steps = efficiency(shape, GIGABITS), pairs / (nodes * BATCH)
        wall = pairs * FLOP_PER_PAIR / FLOP_PER_SECOND / nodes / share / 3600
        sent = steps * sum(bytes_sent(shape).values()) / 1e12
        rows.append((str(nodes), f"{share:.0%}", f"{wall:,.1f}", f"{steps:,.0f}", f"{sent:,.0f}"))
    return rows


def storage() -> list[tuple[str, str, str]]:
    """Tables by what they take, GB, and for how long."""
    pairs, nightly = CLICKS * WINDOW_DAYS * PAIRS_PER_CLICK, "a night"
    return [
        ("click_log", f"{CLICKS * EVENTS_PER_CLICK * BYTES['event'] / 1e9:,.0f}", nightly + " (an input)"),
        ("pairs", f"{pairs * BYTES['pair'] / 1e9:,.0f}", nightly),
        ("datasets", f"{pairs * BYTES['pair, tokenised'] / 1e9:,.0f}", "a training night"),
        ("item_terms, item_categories", f"{ITEMS * (BYTES['item_terms'] + BYTES['item_categories']) / 1e9:,.0f}", nightly),
        ("labels_current", f"{ITEMS * BYTES['labels_current'] / 1e9:,.0f}", "once, and what changed as long as time travel"),
        ("item_embeddings", f"{ITEMS * BYTES['embedding'] / 1e9:,.0f}", "a bundle"),
        ("similar_items, 10 each", f"{ITEMS * 10 * BYTES['similar item'] / 1e9:,.0f}", nightly),
    ]


BREAKS = (
    (
        "known pairs of a rank",
        "16 bytes each in every rank's memory: {known:,.0f} GB",
        "keep those of the rows that a rank reads (shard by query), or a Bloom filter beside the exact look-up",
    ),
    (
        "the gate's evaluation",
        "all titles in the memory of one machine, up to 10^7 (docs/limits.md); 10^8 are {titles:,.0f} GB of float32, twice",
        "evaluate against a fixed sample of 10^7 titles and say so, or search shards in Spark as predict does",
    ),
    (
        "similar_items",
        "exact, items by items: 10^16 products of 256; `[relate] max_similar_texts` stops it at 10^6",
        "an IVF index with its recall measured, on GPUs",
    ),
    (
        "predict on CPUs",
        "{predict:,.0f} core hours a night for unchanged items too",
        "search only for items that changed, and all of them among new forms alone; or GPUs",
    ),
    (
        "the window",
        "pairs cleans 14 days every night, of which 13 were cleaned the night before: {pairs:,.0f} core hours",
        "keep cleaned acts by day; robots and sessions are judged within a day, supports and propensities over the window",
    ),
    (
        "broadcasts",
        "2 x 10^6 forms are {forms:.1f} GB of vectors in each Python worker, names beside them {names:.1f}",
        "fewer, larger workers, or memory-mapped from a file on each machine",
    ),
    (
        "the network of training",
        "gathered vectors outgrow the gradients from some 8 nodes on; 64 nodes at 25 Gb/s compute {share:.0%} of the time",
        "100 Gb/s, or gather within groups of nodes",
    ),
)


def page() -> str:
    """The plan as Markdown."""
    pairs = CLICKS * WINDOW_DAYS * PAIRS_PER_CLICK
    found = lines()
    core = {line.stage: line.core_hours or 0.0 for line in found}
    figures = {
        "known": pairs * 16 / 1e9,
        "titles": ITEMS * DIM * 4 / 1e9,
        "predict": core["predict"],
        "pairs": core["pairs"],
        "forms": FORMS * DIM * 4 / 1e9,
        "names": FORMS * DIM * 2 / 1e9,
        "share": efficiency(step_of(NODES[-1]), GIGABITS),
    }
    parts = [
        "# A night of 10^9 clicks, on paper",
        "",
        "`python -m benchmarks.plan`. 10^9 clicks a night, a window of 14 days, 10^8 items, 10^6 terms in 2 x 10^6 forms, "
        f"3% of the titles changed; {EVENTS_PER_CLICK} events and {PAIRS_PER_CLICK} distinct pairs a click, as in the "
        "generated shop. Linear from rates of two cores (`docs/results.md`; without fixed costs); **computed, none of it "
        "has run**.",
        "",
        *table(HEAD, [line.cells() for line in found]),
        "",
        f"One epoch of `published`, {BATCH:,} pairs a node, one GPU a node at {GIGABITS} Gb/s (`docs/results.md`, "
        '"Many nodes"):',
        "",
        *table(("nodes", "share computing", "hours", "steps", "TB a node sends"), training()),
        "",
        "Storage:",
        "",
        *table(("table", "GB", "for each"), storage()),
        "",
        "What breaks first, in this order:",
        "",
        *table(("what", "why", "cure"), [(what, why.format(**figures), cure) for what, why, cure in BREAKS]),
        "",
    ]  # fmt: skip
    return "\n".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("docs/bench/plan.md"), help="default: %(default)s")
    args = parser.parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page(), encoding="utf-8")
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
