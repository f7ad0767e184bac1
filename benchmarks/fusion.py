"""Which weight BM25 gets beside the vector: chosen on the validation queries of the studies, never on the test queries.

Give --root a warehouse in which `python -m benchmarks.studies --study combined` has run; the bundle is that of CHOSEN, the
recipe of `benchmarks.sets.homedepot`. Scores of both are scaled to their maximum for the query and summed; weight 0 is the
vector alone, 1 BM25 alone.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.sets.homedepot_evaluation import BATCH, MEASURES, bm25_scores, fuse, measures
from benchmarks.sets.homedepot_judgements import HomeDepotConfig
from etl.config import arg_parser
from etl.contracts import PAIRS
from etl.job import run_job
from etl.product_template import ProductTemplate
from etl.text import normalise
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.baselines import bm25_tokens
from labeling.machine import hardware
from model.bundle import load_bundle

log = logging.getLogger(__name__)

CHOSEN = "8 crops, feature dropout .2, 1,024 wide".replace(" ", "_")
"""Cell of the study."""

WEIGHTS = tuple(round(0.1 * n, 1) for n in range(11))


class FusionConfig(HomeDepotConfig):
    """Settings of the choice."""

    bundle: str = ""
    """Directory of the bundle; empty: one of CHOSEN."""

    docs: str = "docs/studies"
    """Where table and plot go."""


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(FusionConfig, "python -m benchmarks.fusion", __doc__ or ""), FusionConfig, run, argv)


def run(config: FusionConfig) -> Mapping[str, Any]:
    """Measure every weight, lay down table and plot; returns the weight with the highest recall@10."""
    torch.set_num_threads(1)
    studies = Path(config.root).resolve() / "studies"
    bundle = load_bundle(Path(config.bundle or next(studies.glob(f"combined/{CHOSEN}-*/*/manifest.json")).parent))
    queries, titles = validation(Warehouse(studies / "wordhash"), config)
    found = by_weight(bundle.encode(list(queries), "query"), bundle.encode(titles, "title"), queries, titles)
    best = max(found, key=lambda weight: found[weight][0])
    target = Path(config.docs)
    target.mkdir(parents=True, exist_ok=True)
    (target / "fusion.md").write_text(table(found, len(queries), best), encoding="utf-8")
    draw(found, target / "fusion.png")
    return {"weight": best, "queries": len(queries), "path": target}


def validation(warehouse: Warehouse, config: FusionConfig) -> tuple[dict[str, set[int]], list[str]]:
    """Validation query -> places of its clicked titles in the list of all distinct ones, which comes second."""
    clicked = local_tables.read(warehouse, PAIRS, config.ds, ("query", "title", "split")).rows()
    catalogue = local_tables.catalogue_texts(warehouse, config.ds, ProductTemplate("{title}"))
    titles = sorted({normalise(title) for title in catalogue.values() if title})
    place = {title: n for n, title in enumerate(titles)}
    queries: dict[str, set[int]] = {}
    for query, title, split in clicked:
        if split == "valid":
            queries.setdefault(query, set()).add(place[normalise(title)])
    return dict(sorted(queries.items())), titles


def by_weight(
    query_QD: np.ndarray, title_ND: np.ndarray, queries: Mapping[str, set[int]], titles: Sequence[str]
) -> dict[float, np.ndarray]:
    """Weight -> mean of each of MEASURES, [3]."""
    lexical = bm25_scores(list(queries), titles, bm25_tokens)
    values: dict[float, list[np.ndarray]] = {weight: [] for weight in WEIGHTS}
    gold = [np.isin(np.arange(len(titles)), list(places)) for places in queries.values()]
    for start in range(0, len(queries), BATCH):
        batch = slice(start, start + BATCH)
        cosine_BN, bm25_BN = query_QD[batch] @ title_ND.T, lexical(batch)
        for weight in WEIGHTS:
            fused = fuse(cosine_BN, bm25_BN, weight)
            values[weight] += [measures(row, wanted) for row, wanted in zip(fused, gold[batch], strict=True)]
    return {weight: np.mean(each, axis=0) for weight, each in values.items()}


def table(found: Mapping[float, np.ndarray], queries: int, best: float) -> str:
    """Markdown."""
    head = f"`python -m benchmarks.fusion --root DIR`, on {queries} validation queries of Home Depot. {hardware()}."
    lines = [
        "# Study: fusion",
        "",
        head,
        "",
        f"| weight of BM25 | {' | '.join(MEASURES)} |",
        "|---|" + "---|" * len(MEASURES),
    ]
    for weight, values in found.items():
        bold = "**" if weight == best else ""
        lines.append(f"| {bold}{weight:g}{bold} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(lines) + "\n"


def draw(found: Mapping[float, np.ndarray], file: Path) -> None:
    """R@10 and MRR@10 against the weight."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for place, name in ((0, "R@10"), (2, "MRR@10")):
        axes.plot(list(found), [values[place] for values in found.values()], marker="o", label=name)
    axes.set_xlabel("weight of BM25 (0: the vector alone)")
    axes.set_title("Study: fusion, validation queries")
    axes.legend()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
