"""The page and the plot of one machine's comparisons, made from the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.speed.comparison import NOT_REACHED, OPEN, REACHED, Comparison, cells, number, ratio_of

AHEAD, BEHIND, UNSURE = "#0072b2", "#d55e00", "#999999"
"""Okabe & Ito (2008); grey where the interval holds 1."""


def write(history: Sequence[Comparison], docs: Path, machine: str, unasked: Mapping[str, str]) -> None:
    """Write MACHINE.md and, where there is a ratio, MACHINE.png into ``docs``.

    Args:
        history: All machines', oldest first.
        docs: Directory.
        machine: Whose page.
        unasked: Why a question may have no row, by its name.
    """
    rows = [one for one in history if one.hardware["name"] == machine]
    newest = latest(rows)
    if not newest:
        return
    measured = [one for one in newest if one.ratio is not None]
    about = newest[-1].hardware
    versions = ", ".join(f"{name} {value}" for name, value in about.items() if name not in ("name", "machine"))
    lines = [
        f"# Side by side: {machine}",
        "",
        f"`make bench` on {about['machine']}; {versions}. A ratio is how many times better ours is: 2 is twice as fast, .5 "
        "half as fast; its 95% by the bootstrap over paired turns, where there were five. Unless a unit says otherwise, "
        'costs are CPU seconds, so that other jobs of a shared machine do not count. "Before" are earlier runs\' ratios.',
        "",
        *verdicts(newest, unasked),
    ]
    if measured:
        draw(measured, docs / f"{machine}.png")
        lines += [f"![Ratios with their goals]({machine}.png)", ""]
    for question in dict.fromkeys(one.question for one in newest):
        lines += [f"## {question}", "", "| case | peer | unit | ours | theirs | ratio (95%) | goal | check | before |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        for one in newest:
            if one.question == question:
                lines.append("| " + " | ".join((one.case, one.peer, one.unit, *cells(one), before(rows, one))) + " |")
        run = next(one for one in newest if one.question == question)
        lines += ["", f"Measured {run.at[:16].replace('T', ' ')} UTC at {run.revision or 'no revision'}.", ""]
    (docs / f"{machine}.md").write_text("\n".join(lines), encoding="utf-8")


def latest(rows: Sequence[Comparison]) -> list[Comparison]:
    """The figures of the last run of each question that gave some, and what is said of a later one that failed."""
    found = []
    for question in dict.fromkeys(one.question for one in rows):
        own = [one for one in rows if one.question == question]
        whole = [one for one in own if not one.failed]
        last = whole[-1].at if whole else ""
        found += [one for one in whole if one.at == last]
        found += [own[-1]] if own[-1].failed else []
    return found


def key(one: Comparison) -> tuple[str, str, str, str]:
    return one.question, one.case, one.peer, one.unit


def before(rows: Sequence[Comparison], one: Comparison) -> str:
    """Ratios of the same case in earlier runs, with their days."""
    earlier = [other for other in rows if key(other) == key(one) and other is not one and other.ratio is not None]
    return ", ".join(f"{other.ratio:.2f} ({other.at[:10]})" for other in earlier[-3:] if other.ratio is not None)


def verdicts(newest: Sequence[Comparison], unasked: Mapping[str, str]) -> list[str]:
    """What was reached, where we are behind, and what did not run."""
    by_verdict = {
        verdict: [f"{named(one)}: {ratio_of(one)}, goal {one.goal:.3g}" for one in newest if one.verdict == verdict]
        for verdict in (REACHED, OPEN, NOT_REACHED)
    }
    behind = [f"{named(one)}: {ratio_of(one)}" for one in newest if one.behind and one.verdict != NOT_REACHED]
    missing = [f"{one.question}, {one.case}: {one.not_run}" for one in newest if one.not_run]
    asked = {one.question for one in newest}
    missing += [f"{name}: {why}" for name, why in unasked.items() if name not in asked]
    return [
        f"Goals reached, by all of the interval: {len(by_verdict[REACHED])} of {sum(map(len, by_verdict.values()))}.",
        "",
        *listed("Goals not reached", by_verdict[NOT_REACHED]),
        *listed("Goals within the interval", by_verdict[OPEN]),
        *listed("Behind, besides", behind),
        *listed("Not run", missing),
    ]


def listed(title: str, found: Sequence[str]) -> list[str]:
    return [f"**{title}**:{'' if found else ' nothing.'}", "", *(f"- {one}" for one in found), *([""] if found else [])]


def named(one: Comparison) -> str:
    return f"{one.question}, {one.case}, {one.unit}, beside {one.peer}"


def draw(rows: Sequence[Comparison], file: Path) -> None:
    """Ratios with their intervals on a log axis, goals as bars; one line each."""
    figure = Figure(figsize=(11, 1.2 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(rows):
        assert one.ratio is not None
        low, high = one.spread or (one.ratio, one.ratio)
        colour = AHEAD if low > 1 else BEHIND if high < 1 else UNSURE
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(one.ratio, place, "o", color=colour)
        if one.goal is not None:
            axes.plot(one.goal, place, "|", color="black", markersize=13, markeredgewidth=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_yticks(
        range(len(rows)), [f"{one.case[:95]}\n{one.question}: {one.peer}, {one.unit}" for one in rows], fontsize=6
    )
    axes.invert_yaxis()
    axes.set_xlabel("times better than the peer (| goal)")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
