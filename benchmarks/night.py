"""The whole night, `make nightly`: where its seconds go by stage, beside its goal and beside a script of one afternoon.

Two nights of a generated shop, the first of which trains, the second of which does not; each stage is run under a meter.
Wall seconds count here, so measure on a machine that does nothing else; CPU seconds and memory are those of all processes
of a stage. Writes the profile as a page and a plot beside the comparisons. One turn each: a night is no matter of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from benchmarks.growth.meter import Cost, metered
from benchmarks.speed.comparison import Comparison, add_results_argument, faster, record
from benchmarks.speed.machine_name import this_machine
from labeling.machine import hardware

NIGHTS = {"first": "2024-05-07", "second": "2024-05-08"}
GOAL_SECONDS = 360.0
"""Of the wall, for `make nightly` on two cores after set-up, the sample's making included."""
CLICKS = 320_000
METERED = """#!/bin/sh
exec "{python}" -m benchmarks.growth.meter "{costs}/$(date +%s%N)-$1.json" "{python}" -m labeling.cli "$@"
"""
"""In the place of `labeller` (LABELLER_BIN)."""


@dataclass(frozen=True, slots=True)
class Night:
    """What `make nightly` cost, and each stage of it."""

    whole: Cost
    stages: Mapping[str, Cost]

    @property
    def between(self) -> float:
        """Wall seconds outside of all stages: Airflow's own."""
        return (self.whole.wall or 0.0) - sum(cost.wall or 0.0 for cost in self.stages.values())


def nightly(root: Path, ds: str, scratch: Path) -> Night:
    """Run `make nightly` for a day, each stage under a meter.

    Raises:
        RuntimeError: it failed; with the last of what it said.
    """
    costs = scratch / f"costs-{ds}"
    shutil.rmtree(costs, ignore_errors=True)
    costs.mkdir(parents=True)
    program = scratch / "labeller"
    program.write_text(METERED.format(python=sys.executable, costs=costs), encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    os.environ["LABELLER_BIN"] = str(program)
    os.environ["PYTHONPATH"] = str(Path.cwd())
    whole = metered(["make", "nightly", f"ROOT={root}", f"DS={ds}"], scratch / f"nightly-{ds}.log")
    found = sorted(costs.glob("*.json"), key=lambda file: int(file.name.split("-")[0]))
    stages = {re.sub(r"^\d+-", "", file.stem): Cost(**json.loads(file.read_text(encoding="utf-8"))) for file in found}
    return Night(whole, stages)


def hits(table: Path, root: Path) -> float:
    """Share of the items of a Delta table whose term is one of theirs by the truth of a generated shop."""
    names = pl.read_parquet(root / "vocabulary" / "*.parquet").select("term_id", "term")
    true = (
        pl.read_parquet(root / "truth" / "item_terms" / "*.parquet").select("item_id", "term_id").join(names, on="term_id")
    )
    labels = pl.read_delta(str(table)).select("item_id", "term")
    return labels.join(true, on=["item_id", "term"], how="semi").height / labels.height


def profile(nights: Mapping[str, Night], docs: Path) -> None:
    """Write the page and the plot: wall and CPU seconds and memory of each stage of each night."""
    name = f"night-{this_machine()}"
    lines = [f"# Where a night's seconds go: {this_machine()}", "", f"`python -m benchmarks.night`, on {hardware()}.", ""]
    for which, night in nights.items():
        lines += [f"## The {which} night", "", "| stage | wall s | share | CPU s | GiB |", "|---|---|---|---|---|"]
        whole = night.whole.wall or 0.0
        for stage, cost in night.stages.items():
            wall = cost.wall or 0.0
            lines.append(f"| {stage} | {wall:.1f} | {wall / whole:.0%} | {cost.cpu:.1f} | {cost.gib:.2f} |")
        used = night.whole.cpu - sum(cost.cpu for cost in night.stages.values())
        lines.append(
            f"| Airflow and make, between them | {night.between:.1f} | {night.between / whole:.0%} | {used:.1f} | |"
        )
        lines += [f"| all | {whole:.1f} | | {night.whole.cpu:.1f} | {night.whole.gib:.2f} |", ""]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    for axes, (which, night) in zip(figure.subplots(1, len(nights), squeeze=False)[0], nights.items(), strict=True):
        axes.barh(list(night.stages), [cost.wall or 0.0 for cost in night.stages.values()], color="#0072b2", label="wall")
        axes.barh(list(night.stages), [cost.cpu for cost in night.stages.values()], height=0.3, color="#e69f00", label="CPU")
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
        axes.set_title(f"{which} night, {night.whole.wall:.0f} s")
        axes.legend()
    docs.mkdir(parents=True, exist_ok=True)
    figure.savefig(docs / f"{name}.png", dpi=100)
    lines += [f"![Seconds by stage]({name}.png)", ""]
    (docs / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.night", description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True, help="directory for the shop, which is made anew")
    parser.add_argument("--clicks", type=int, default=CLICKS, help="of the shop (default: %(default)s)")
    parser.add_argument("--docs", type=Path, default=Path("docs/bench"), help="page and plot (default: %(default)s)")
    add_results_argument(parser)
    args = parser.parse_args(argv)
    scratch = args.root.resolve()
    root = scratch / "warehouse"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    make = [sys.executable, "-m", "labeling.cli", "sample", "--root", str(root), "--clicks", str(args.clicks)]
    sample = metered(make, scratch / "sample.log")
    nights = {"first": nightly(root, NIGHTS["first"], scratch)}
    right = {"first": hits(root / "labels_current", root)}
    nights["second"] = nightly(root, NIGHTS["second"], scratch)
    right["second"] = hits(root / "labels_current", root)
    plain, out = ["-m", "benchmarks.speed.plain_night", "--root", str(root)], scratch / "plain"
    shutil.rmtree(out, ignore_errors=True)
    script = metered([sys.executable, *plain, "--ds", NIGHTS["first"], "--out", str(out)], scratch / "plain.log")
    profile(nights, args.docs)
    right["script"] = hits(out, root)
    record(compared(sample, nights, script, right, args.clicks), args.results)
    return 0


def compared(
    sample: Cost, nights: Mapping[str, Night], script: Cost, right: Mapping[str, float], clicks: int
) -> list[Comparison]:
    """The nights beside their goal (the first with the sample's making, as `make nightly` has it), and beside the script.

    ``right``: share of items whose first term is one of theirs, of both nights and the script.

    Raises:
        RuntimeError: the script's labels are the better ones: what they cost less is not comparable.
    """
    if not min(right["first"], right["second"]) >= right["script"]:
        raise RuntimeError(f"term hit@1 of the nights and the script: {dict(right)} (expected: the script's the lowest)")
    first, second = nights["first"].whole, nights["second"].whole
    walls = [(cost.wall or 0.0) for cost in (sample, first, second, script)]
    met: dict[str, Any]
    case, goal, met = f"{clicks:,} clicks", f"the goal of {GOAL_SECONDS:.0f} s", {"goal": 1.0, "unit": "wall s"}
    terms = {name: f"term hit@1 {right[name]:.3f}, the script's {right['script']:.3f}" for name in nights}
    peer = "DuckDB, StaticEmbedding, faiss, delta-rs in a script"
    trains = f"first night, which trains, and the sample's making, {case}"
    return [
        faster("night", trains, goal, [walls[0] + walls[1]], [GOAL_SECONDS], check=terms["first"], **met),
        faster("night", f"second night, {case}", goal, [walls[2]], [GOAL_SECONDS], check=terms["second"], **met),
        faster("night", f"first night, {case}", peer, [walls[1]], [walls[3]], check=terms["first"], unit="wall s"),
        faster("night", f"first night, {case}", peer, [first.cpu], [script.cpu], check=terms["first"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
