"""What an evaluation shows: a table per split with its slices, remarks on the set, term pairs, and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labeling.evaluation_set import Remark
from labeling.sections import Section
from model.evaluate import TYPOS, Evaluation
from model.metrics import DEPTH, MEASURES, Interval, intervals, recall

RANKS = (1, 2, 3, 5, 10, 20, 50, DEPTH)
WHAT = {
    "valid": "unseen queries, to choose by",
    "test": "unseen queries; nothing may be chosen on them",
    "item": "titles that training never saw",
    "time": "first clicked on days after those of training",
}
"""What is new in each split of a dataset."""


def evaluation_sections(
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]], remarks: Sequence[Remark], pairs: Mapping[str, Mapping[str, Any]]
) -> Iterator[Section]:
    """From :meth:`model.evaluate.Evaluation.slices`, the set's remarks, and :func:`labeling.term_pairs.across_languages`."""
    if remarks:
        counted = [(f"{remark.count:,}", remark.what, ", ".join(remark.first)) for remark in remarks]
        yield Section("About this evaluation set", ("count", "what", "the first"), counted, folded=(1, 2))
    measures = (*MEASURES, TYPOS)
    for split, found in slices.items():
        rows = [
            (name.split()[-1], f"{of['queries']:,}", *(cell(of[m]) for m in measures), _share(of["typos_kept"]))
            for name, of in found.items()
        ]
        heading = split + (f": {WHAT[split]}" if split in WHAT else "")
        yield Section(heading, ("slice", "queries", *MEASURES, "with typos", "kept"), rows)
    if pairs:
        ways = [(way, f"{of['terms']:,}", cell(of["hit@1"]), cell(of["mrr@10"])) for way, of in pairs.items()]
        note = "Of the generator's vocabulary only: it has each term in both languages. No real set here has such pairs."
        yield Section("A term's form in the other language", ("asked -> found", "terms", "hit@1", "mrr@10"), ways, note)


def differences_section(differences: Mapping[str, Mapping[str, Interval]], bundle: str, other: str) -> Iterator[Section]:
    """From :meth:`model.evaluate.Evaluation.less`; nothing where there is no other bundle."""
    if differences:
        names = (*MEASURES, TYPOS)
        rows = [(name, *(signed(found[name]) for found in differences.values())) for name in names]
        note = "On the same queries, one by one; what is certain has an interval that leaves out 0."
        yield Section(f"Difference: bundle {bundle} minus bundle {other}", ("measure", *differences), rows, note)


def signed(difference: Interval) -> str:
    """A difference with its 95% interval, ``+.012 -.004 to +.028``."""
    mean, low, high = ("" if value is None else f"{value:+.3f}".replace("0.", ".", 1) for value in difference)
    return f"{mean} {low} to {high}" if low else mean


def cell(interval: Sequence[float | None]) -> str:
    """A mean with its 95% interval, ``.512 .480-.544``: five of them fit into a line."""
    mean, low, high = ("" if value is None else f"{value:.3f}".removeprefix("0") for value in interval)
    return f"{mean} {low}-{high}" if low else mean


def draw(evaluation: Evaluation, slices: Mapping[str, Mapping[str, Mapping[str, Any]]], file: Path) -> None:
    """Recall by number of titles shown, of each split, and recall@10 of the slices; bands and bars are 95% intervals."""
    split = next(name for name in ("test", *slices) if name in slices)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    curves, bars = figure.subplots(1, 2)
    for name in slices:
        _curve(curves, evaluation.part(name), name)
    curves.set(xscale="log", xlabel="titles shown (k)", ylabel="recall@k", ylim=(0, 1), xticks=RANKS, xticklabels=RANKS)
    curves.legend()
    found = [Interval(*of["recall@10"]) for of in slices[split].values()]
    low, high = _bounds(found)
    means = np.array([of.mean for of in found])
    bars.barh(list(slices[split]), means, xerr=(means - low, high - means), color="#56b4e9", capsize=3)
    bars.set(xlabel=f"recall@10, {split}", xlim=(0, 1))
    bars.invert_yaxis()
    figure.savefig(file, dpi=120)


def _curve(axes: Axes, part: Evaluation, name: str) -> None:
    ranks = [k for k in RANKS if k <= part.hits.shape[1]]
    found = list(intervals({str(k): recall(part.hits, part.relevant, k) for k in ranks}).values())
    (line,) = axes.plot(ranks, [of.mean for of in found], marker=".", label=f"{name} ({len(part.relevant):,})")
    axes.fill_between(ranks, *_bounds(found), color=line.get_color(), alpha=0.2, linewidth=0)


def _bounds(found: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends; the mean where there are none."""
    ends = [[of.mean if end is None else end for end in (of.low, of.high)] for of in found]
    low, high = np.array(ends).T
    return low, high


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
