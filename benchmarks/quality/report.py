"""The page of a set's quality report: a table a slice, what is beaten, how far probabilities can be trusted, plots."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.quality.measures import Values, gain, summary
from benchmarks.quality.tasks import Task
from labeling.reliability import reliability
from model.metrics import Interval

log = logging.getLogger(__name__)

BINS = 15


@dataclass(frozen=True, slots=True)
class Row:
    """One system on the test part."""

    name: str
    settings: str
    """What the validation part chose; empty: nothing was to be chosen."""
    values: Values
    """None of a system that was not run."""

    @property
    def system(self) -> str:
        """What it is a row of, whatever its variant."""
        return self.name.partition(",")[0]

    def with_values(self, more: Values) -> Row:
        return replace(self, values={**self.values, **more})


@dataclass(frozen=True, slots=True)
class Found:
    """All that was measured of a set; ours are the rows, the first one among them, whose name starts so."""

    rows: list[Row]
    stated: np.ndarray
    """Probabilities that ours stated, and 1 where it was right [N, 2]."""


def write_report(task: Task, found: Found, docs: Path, of: str) -> None:
    """Write <set>.md and the plots beside it."""
    docs.mkdir(parents=True, exist_ok=True)
    size = len(next(iter(found.rows[0].values.values())))
    slices: Mapping[str, np.ndarray] = task.slices or {"all": np.ones(size, dtype=bool)}
    lines = [f"# Quality: {task.name}", "", f"`python -m benchmarks.quality --root DIR --sets {task.name}`, {of}.", ""]
    for name, chosen in slices.items():
        lines += [f"## {name}: {int(chosen.sum()):,} cases", "", *_table(found.rows, chosen), "", *_gains(found, chosen), ""]
    lines += _reliability(found.stated, task.name)
    (docs / f"{task.name}.md").write_text("\n".join(lines), encoding="utf-8")
    _draw(found.stated, docs / f"{task.name}.png")
    log.info("wrote %s", docs / f"{task.name}.md")


def _table(rows: list[Row], chosen: np.ndarray) -> list[str]:
    measures = list(dict.fromkeys(name for row in rows for name in row.values))
    lines = [f"| | {' | '.join(measures)} | settings |", "|" + "---|" * (len(measures) + 2)]
    for row in rows:
        found = summary(row.values, chosen)
        cells = [_cell(found[name]) if name in found else "" for name in measures]
        lines.append(f"| {row.name} | {' | '.join(cells)} | {row.settings} |")
    return lines


def _cell(found: Interval) -> str:
    return f"{found.mean:.3f}" if found.low is None else f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


def _gains(found: Found, chosen: np.ndarray) -> list[str]:
    """What each of our rows is ahead of each one of another system below it, measure by measure."""
    lines = []
    for place, our in enumerate(found.rows):
        below = found.rows[place + 1 :] if our.name.startswith("ours") else []
        for row in (row for row in below if row.values and row.system != our.system):
            gains = {name: gain(our.values[name], value, chosen) for name, value in row.values.items() if name in our.values}
            # One that gives no label has no precision: of fewer than two cases in common nothing is told.
            told_of = {name: g for name, g in gains.items() if g.low is not None}
            beaten = bool(told_of) and all(g.low is not None and g.low > 0 for g in told_of.values())
            told = ", ".join(f"{name} {g.mean:+.3f} ({g.low:+.3f} to {g.high:+.3f})" for name, g in told_of.items())
            lines.append(f"- {our.name} against {row.name}: **{'beaten' if beaten else 'not beaten'}**. {told}.")
    return lines


def _reliability(stated: np.ndarray, name: str) -> list[str]:
    found = reliability(*stated.T)
    skill, auc = (("-" if value is None else f"{value:.3f}") for value in (found.brier_skill, found.auc))
    return [
        "## Probabilities",
        "",
        f"Of {len(stated):,} stated: expected calibration error **{found.error:.3f}** ({BINS} bins of equal mass), "
        f"Brier skill **{skill}**, AUC **{auc}**; on average {stated[:, 0].mean():.3f} stated, {stated[:, 1].mean():.3f} "
        "right.",
        "",
        f"![Reliability, and risk by coverage]({name}.png)",
        "",
    ]


def _draw(stated: np.ndarray, file: Path) -> None:
    """Frequency by probability, and the share that is wrong by the share that is kept when the least probable go first."""
    order = np.argsort(-stated[:, 0], kind="stable")
    right = stated[order, 1]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, (left, other) = plt.subplots(1, 2, figsize=(7.5, 3.2), layout="constrained")
        bins = [part for part in np.array_split(stated[order[::-1]], BINS) if len(part)]
        left.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        left.plot([b[:, 0].mean() for b in bins], [b[:, 1].mean() for b in bins], "o-", color="#0072B2", markersize=4)
        left.set(xlabel="stated probability", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
        kept = np.arange(1, len(right) + 1)
        other.plot(kept / len(right), 1 - np.cumsum(right) / kept, color="#D55E00")
        other.set(xlabel="share of labels kept, most probable first", ylabel="share of them that is wrong", ylim=(0, None))
        figure.savefig(file, dpi=120)
        plt.close(figure)
