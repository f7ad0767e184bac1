"""A paper plan: what a night of 10^9 clicks, 10^8 items and 10^6 terms would take, from measured rates. None of it has run.

Linear from one machine of two cores up: what is not linear (search of items among items, memory of one process) stands
in the page as what breaks first. What was not measured, such as the rate of a GPU, is marked as assumed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.scaling import (
    FLOP_PER_SECOND,
    PARAMETERS,
    StepShape,
    bytes_sent,
    efficiency,
    step_seconds,
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
HEAD = ("stage", "work", "core hours", "minutes", "GPU hours", "GB moved", "")
MACHINES, CORES, MEMORY_GB = 32, 16, 64
"""Of Spark; the cores and GB of each."""
SHUFFLES, SHUFFLED_BYTES = 3, 60
"""Times that `pairs` moves a click between machines (sessions, supports, pairs), and the bytes of one. Assumed."""


@dataclass(frozen=True, slots=True)
class Rate:
    """CPU seconds of one core for one more, above what a stage costs anyway."""

    seconds: float
    source: str


GROWTH = "growth-amd-epyc-2-cores-avx2.md"
RATES = {
    "pairs, a click with its impressions": Rate(0.257e-3, f"{GROWTH}, to 237,000 clicks"),
    "dataset, a click": Rate(0.080e-3, f"{GROWTH}, to 237,000 clicks"),
    "a title encoded, hybrid": Rate(1 / 634, "docs/results.md, The presets beside each other; without AMX"),
    "an item searched among 100,000 terms": Rate(1 / 1_331, "amd-epyc-2-cores-avx2.md, topk, 256 at once"),
    "predict, an item besides": Rate(0.19e-3, f"{GROWTH}, to 15,000 items: rough"),
    "audit, an item": Rate(0.25e-3, "assumed: to 15,000 items nothing is told from the fixed cost"),
    "publish, an item": Rate(0.68e-3, f"{GROWTH}, to 15,000 items: rough"),
    "relate, an item": Rate(1.8e-3, f"{GROWTH}, to 15,000 items, their search among one another included: rough"),
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
    """Read and written, and moved between machines."""
    nightly: bool = True
    """Not only on nights that train, or after a new bundle."""
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        cores, wall = "", ""
        if self.core_hours is not None:
            cores, wall = f"{self.core_hours:,.0f}", f"{60 * self.core_hours / (MACHINES * CORES):,.0f}"
        gpus = "" if self.gpu_hours is None else f"{self.gpu_hours:,.1f}"
        return self.stage, self.work, cores, wall, gpus, f"{self.moved_gb:,.0f}", self.note


def hours(rate: str, count: float) -> float:
    return RATES[rate].seconds * count / 3600


def clicks_of_window() -> float:
    return CLICKS * WINDOW_DAYS


def pairs_of_window() -> float:
    return clicks_of_window() * PAIRS_PER_CLICK


def lines() -> list[Line]:
    """The stages with their work."""
    clicks, pairs = clicks_of_window(), pairs_of_window()
    events = clicks * EVENTS_PER_CLICK
    nodes = NODES[1]
    return [
        Line(
            "pairs", f"{clicks:.1e} clicks, {events:.1e} events of {WINDOW_DAYS} days",
            hours("pairs, a click with its impressions", clicks),
            moved_gb=(events * BYTES["event"] + SHUFFLES * SHUFFLED_BYTES * clicks + pairs * BYTES["pair"]) / 1e9,
            note="the whole window is cleaned every night",
        ),
        Line(
            "dataset", f"{pairs:.1e} pairs", hours("dataset, a click", clicks), nightly=False,
            moved_gb=pairs * (BYTES["pair"] + BYTES["pair, tokenised"]) / 1e9,
        ),
        Line(
            "train, published", f"{pairs:.1e} pairs, one epoch on {nodes} GPUs", gpu_hours=training_hours(nodes)[1],
            moved_gb=pairs * BYTES["pair, tokenised"] / 1e9, nightly=False,
            note=f"{FLOP_PER_SECOND / 1e12:.0f} TFLOP/s a GPU assumed, not measured; what the network moves is below",
        ),
        Line(
            "embed, all", f"{ITEMS:.0e} titles, hybrid on CPUs", hours("a title encoded, hybrid", ITEMS), nightly=False,
            moved_gb=ITEMS * BYTES["embedding"] / 1e9,
            note="after a new bundle; published on a GPU: "
            f"{ITEMS * FLOP_PER_TITLE / FLOP_PER_SECOND / 60:.0f} GPU minutes (assumed)",
        ),
        Line("embed, changed", f"{CHANGED * ITEMS:.0e} titles", hours("a title encoded, hybrid", CHANGED * ITEMS)),
        Line(
            "predict", f"{ITEMS:.0e} items among {FORMS:.0e} forms",
            hours("an item searched among 100,000 terms", ITEMS * FORMS / 1e5) + hours("predict, an item besides", ITEMS),
            moved_gb=ITEMS * (BYTES["embedding"] + BYTES["item_terms"] + BYTES["item_categories"]) / 1e9,
            note="all items every night; on GPUs at an eighth of their bf16 rate in fp32 (assumed) the search is "
            f"{2 * ITEMS * FORMS * DIM / (FLOP_PER_SECOND / 8) / 3600:.1f} GPU hours",
        ),
        Line(
            "audit", f"{ITEMS:.0e} items", hours("audit, an item", ITEMS),
            moved_gb=ITEMS * (BYTES["item_terms"] + BYTES["item_categories"]) / 1e9,
        ),
        Line(
            "publish", f"{ITEMS:.0e} items, {CHANGED:.0%} of them changed", hours("publish, an item", ITEMS),
            moved_gb=ITEMS * (2 * BYTES["labels_current"] + 2 * (BYTES["item_terms"] + BYTES["item_categories"])) / 1e9,
            note="MERGE reads the keys of all live rows, and rewrites the files that hold a changed one",
        ),
        Line(
            "relate", f"{ITEMS:.0e} items, similar_items apart", hours("relate, an item", ITEMS),
            moved_gb=ITEMS * (BYTES["embedding"] + 10 * BYTES["similar item"]) / 1e9,
            note="similar_items is quadratic and stops at its limit, see below",
        ),
    ]  # fmt: skip


def step_of(nodes: int) -> StepShape:
    """Of `published`, ZeRO 1 over nccl."""
    return StepShape(world=nodes, batch=BATCH, dim=512, parameters=PARAMETERS, stage=1, reduce_scatter=True)


def training_hours(nodes: int) -> tuple[float, float]:
    """Of one epoch on nodes of one GPU each: hours that pass, and hours of all GPUs in which they compute."""
    computing, sending = step_seconds(step_of(nodes), GIGABITS)
    steps = pairs_of_window() / (nodes * BATCH)
    return steps * (computing + sending) / 3600, steps * computing * nodes / 3600


def training() -> list[tuple[str, ...]]:
    """Nodes of one GPU: hours of an epoch, and what a node sends."""
    rows: list[tuple[str, ...]] = []
    for nodes in NODES:
        shape = step_of(nodes)
        wall, busy = training_hours(nodes)
        steps = pairs_of_window() / (nodes * BATCH)
        sent = steps * sum(bytes_sent(shape).values()) / 1e12
        share = efficiency(shape, GIGABITS)
        rows.append((str(nodes), f"{share:.0%}", f"{wall:,.1f}", f"{busy:,.0f}", f"{steps:,.0f}", f"{sent:,.0f}"))
    return rows


def storage() -> list[tuple[str, str, str]]:
    """Tables by what they take, GB, and for how long."""
    pairs, nightly = pairs_of_window(), "a night"
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
        "gathered vectors outgrow the gradients from 4 nodes on; 64 nodes at 25 Gb/s compute {share:.0%} of the time",
        "100 Gb/s, or gather within groups of nodes",
    ),
)


def page() -> str:
    """The plan as Markdown."""
    pairs, found = pairs_of_window(), lines()
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
    each = [line for line in found if line.nightly]
    wall = sum(line.core_hours or 0.0 for line in each) / (MACHINES * CORES)
    moved = sum(line.moved_gb for line in each)
    more = sum(line.core_hours or 0.0 for line in found if not line.nightly) / (MACHINES * CORES)
    parts = [
        "# A night of 10^9 clicks, on paper",
        "",
        "`python -m benchmarks.plan`. 10^9 clicks a night, a window of 14 days, 10^8 items, 10^6 terms in 2 x 10^6 forms, "
        f"3% of the titles changed; {EVENTS_PER_CLICK} events and {PAIRS_PER_CLICK} distinct pairs a click, as in the "
        f"generated shop. On {MACHINES} machines of {CORES} cores and {MEMORY_GB} GB, and {NODES[0]} to {NODES[-1]} nodes "
        "of one GPU. Linear from rates of two cores, without fixed costs, and without what a network between the machines "
        "adds; **computed, none of it has run**.",
        "",
        f"A night without training is **{wall:,.1f} hours** and moves {moved / 1e3:,.1f} TB; one that trains is "
        f"{more:,.1f} hours more, and those of the training ({training_hours(NODES[1])[0]:.1f} on {NODES[1]} nodes). "
        "calibrate, which scores the held-out items, mine and report are left out.",
        "",
        *table(HEAD, [line.cells() for line in found]),
        "",
        f"Moved: read, written, and of `pairs` {SHUFFLES} shuffles of {SHUFFLED_BYTES} bytes a click (assumed). Rates, of "
        "one core:",
        "",
        *table(
            ("one more", "CPU ms", "measured in"),
            [(what, f"{1e3 * rate.seconds:.3g}", rate.source) for what, rate in RATES.items()],
        ),
        "",
        f"One epoch of `published`, {BATCH:,} pairs a node, at {GIGABITS} Gb/s (`docs/results.md`, "
        '"Many nodes"; encoder, its second forward pass and loss):',
        "",
        *table(("nodes", "share computing", "hours", "GPU hours computing", "steps", "TB a node sends"), training()),
        "",
        "Storage:",
        "",
        *table(("table", "GB", "for each"), storage()),
        "",
        "What breaks first, in this order:",
        "",
        *table(("what", "why", "cure"), [(what, why.format(**figures), cure) for what, why, cure in BREAKS]),
        "",
    ]
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
