"""Table and plot of a study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Rows = Mapping[str, Mapping[str, Any] | None]
COLUMNS = {"recall@10": "R@10", "recall@100": "R@100", "mrr@10": "MRR@10", "typos_recall@10": "R@10, typos"}


def table(study: str, rows: Rows, command: str) -> str:
    """Markdown; a cell that was not run says so."""
    machines: dict[str, set[int]] = defaultdict(set)
    for row in rows.values():
        for seed, machine in (row or {}).get("hardware", {}).items():
            machines[machine].add(seed)
    where = "; ".join(f"seeds {', '.join(map(str, sorted(seeds)))} on {machine}" for machine, seeds in machines.items())
    heads = ["", *COLUMNS.values(), "R@10 less that of the first row (95%)", "CPU min", "seeds"]
    lines = [f"# Study: {study}", "", f"`{command}`, on validation queries of Home Depot, trained in fp32: {where}.", ""]
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, row in rows.items():
        if row is None:
            values = ["not run"] + [""] * (len(heads) - 2)
        else:
            change = row.get("change")
            values = [f"{row[measure]:.3f}" for measure in COLUMNS]
            values += [f"{change[0]:+.3f} ({change[1]:+.3f} to {change[2]:+.3f})" if change else ""]
            values += ["" if row["cpu_minutes"] is None else f"{row['cpu_minutes']:.1f}", str(row["seeds"])]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def slices_table(each: Mapping[str, np.ndarray], slices: Mapping[str, np.ndarray]) -> str:
    """Markdown: recall@10 of each cell by slice of the queries.

    Args:
        each: Cell -> recall@10 of each query [Q].
        slices: Slice -> whether a query is of it [Q].
    """
    heads = ["recall@10 (queries)", *(f"{name} ({of.sum()})" for name, of in slices.items())]
    lines = ["", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, values in each.items():
        lines.append(f"| {name} | {' | '.join(f'{values[of].mean():.3f}' for of in slices.values())} |")
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
    axes.set_xlabel(f"recall@10 less that of {next(iter(rows))!r}, validation queries")
    axes.set_title(f"Study: {study}")
    figure.savefig(file, dpi=110)
