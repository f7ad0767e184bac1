"""Table and plot of a study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from model.metrics import intervals

Rows = Mapping[str, Mapping[str, Any] | None]
COLUMNS = {"recall@10": "R@10", "recall@100": "R@100", "mrr@10": "MRR@10", "typos_recall@10": "R@10, typos"}


def table(study: str, rows: Rows, command: str, note: str = "") -> str:
    """Markdown; a cell that was not run says so."""
    machines: dict[str, set[int]] = defaultdict(set)
    for row in rows.values():
        for seed, machine in (row or {}).get("hardware", {}).items():
            machines[machine].add(seed)
    where = "; ".join(f"seed {', '.join(map(str, sorted(seeds)))} on {machine}" for machine, seeds in machines.items())
    heads = ["", *COLUMNS.values(), f"R@10 less that of {next(iter(rows))} or as said (95%)"]
    heads += ["steps", "CPU min", "seeds"]
    lines = [f"# Study: {study}", "", f"`{command}`, on validation queries of Home Depot, trained in fp32: {where}.", ""]
    lines += [note, ""] if note else []
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, row in rows.items():
        if row is None:
            values = ["not run"] + [""] * (len(heads) - 2)
        else:
            change = row.get("change")
            values = [f"{row[measure]:.3f}" for measure in COLUMNS]
            than = "" if row.get("base") in (None, next(iter(rows))) else f" than {row['base']}"
            values += [f"{_interval(change)}{than}" if change else "", str(row["steps"])]
            values += ["" if row["cpu_minutes"] is None else f"{row['cpu_minutes']:.1f}", str(row["seeds"])]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def _interval(found: Sequence[Any]) -> str:
    return f"{found[0]:+.3f} ({found[1]:+.3f} to {found[2]:+.3f})"


def slices_table(rows: Rows, slices: Mapping[str, np.ndarray]) -> str:
    """Markdown: recall@10 of each cell by slice of the queries, or how far that is from another base than the first cell's.

    Args:
        rows: Cell -> its row, with recall@10 of each query [Q].
        slices: Slice -> whether a query is of it [Q].
    """
    heads = ["recall@10 (queries)", *(f"{name} ({of.sum()})" for name, of in slices.items())]
    lines = ["", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, row in rows.items():
        if row is None:
            continue
        if row.get("base") in (None, next(iter(rows))):
            values = [f"{row['each'][of].mean():.3f}" for of in slices.values()]
        else:
            values = [_interval(intervals({"": row["less"][of]})[""]) for of in slices.values()]
            name = f"{name}, less {row['base']}"
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def draw(study: str, rows: Rows, file: Path) -> None:
    """Each cell's recall@10 less the first one's, with its 95% interval over queries."""
    shown = {name: row["change"] for name, row in rows.items() if row is not None and "change" in row}
    figure = Figure(figsize=(8, 1.2 + 0.32 * max(len(shown), 1)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#888888", linewidth=1)
    for place, (mean, low, high) in enumerate(shown.values()):
        axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color="#0072b2", capsize=3)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.set_xlabel(f"recall@10 less that of {next(iter(rows))!r}, or of what the table says, validation queries")
    axes.set_title(f"Study: {study}")
    figure.savefig(file, dpi=110)
