"""The page of the growth of cost: a table a group, and what is superlinear by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.growth import jobs, stages
from benchmarks.growth.fit import AS_CLAIMED, MARGIN, SUPERLINEAR, Exponent, above_fixed, exponent, verdict
from benchmarks.growth.jobs import Plan
from benchmarks.growth.lines import Line
from labeling.machine import hardware


def _cpu(line: Line) -> float:
    return line.cost.cpu


def _gib(line: Line) -> float:
    return line.cost.gib


def _count(name: str) -> Callable[[Line], float]:
    return lambda line: line.counts[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """How the cost of one thing grows with its data."""

    what: str
    of: str
    """What the sizes count."""
    lines: Sequence[Line]
    tiny: Sequence[Line] = ()
    """Of the same on the tiny shop: they tell the fixed cost, and are no points of the total's fit."""
    size: Callable[[Line], float]
    cost: Callable[[Line], float] = _cpu
    claimed: float = 1.0

    @property
    def sizes(self) -> list[float]:
        return [self.size(line) for line in self.lines]

    @property
    def costs(self) -> list[float]:
        return [self.cost(line) for line in self.lines]

    @property
    def total(self) -> Exponent | None:
        return exponent(self.sizes, self.costs)

    @property
    def above(self) -> Exponent | None:
        """Above the fixed cost; the total's where no tiny shop was measured."""
        if not self.tiny:
            return self.total
        points = [*self.tiny, *(line for line in self.lines if line not in self.tiny)]
        return above_fixed([self.size(line) for line in points], [self.cost(line) for line in points])

    @property
    def verdict(self) -> str:
        return verdict(self.above, self.claimed)

    @property
    def each(self) -> float | None:
        """Cost of one more, between the tiny shop and the largest; None where no tiny shop was measured."""
        if not self.tiny:
            return None
        first, *_, last = self.by_size()
        more = median(map(self.cost, last)) - median(map(self.cost, first))
        return more / (self.size(last[0]) - self.size(first[0]))

    def by_size(self) -> list[list[Line]]:
        """Lines of each size, the tiny ones first."""
        lines = [*self.tiny, *(line for line in self.lines if line not in self.tiny)]
        return [[line for line in lines if self.size(line) == size] for size in sorted(set(map(self.size, lines)))]


def stage_growths(plan: Plan, lines: Sequence[Line]) -> list[Growth]:
    """Of every chosen stage."""
    found = []
    for stage in stages.CHAIN:
        if not stage.of or stage.name not in plan.chosen:
            continue
        own = _of(lines, jobs.NIGHT, stage.name)
        growth = Growth(
            what=stage.name,
            of=stages.CALLED.get(stage.of, stage.of),
            lines=[line for line in own if line.job.size in plan.sizes],
            tiny=[line for line in own if line.job.size == stages.TINY],
            size=_count(stage.of),
        )
        found.append(growth)
    return found


def worker_growths(plan: Plan, lines: Sequence[Line]) -> list[Growth]:
    """CPU seconds by executors: all, and those above what the tiny shop costs on as many, since starting them is no work."""
    found = []
    for what in jobs.ON_WORKERS:
        own = _of(lines, jobs.WORKERS, what)
        tiny = [line for line in own if line.job.size == stages.TINY]
        started = {
            workers: median(line.cost.cpu for line in tiny if line.job.workers == workers)
            for workers in {line.job.workers for line in tiny}
        }
        whole = [line for line in own if line.job.size == plan.sizes[0]]
        for name, less in ((what, dict.fromkeys(started, 0.0)), (f"{what}, above the tiny shop", started)):
            growth = Growth(
                what=name,
                of="executors",
                lines=whole,
                size=lambda line: line.job.workers,
                cost=_cpu_above(less),
                claimed=0.0,
            )
            found.append(growth)
    return found


def _cpu_above(less: Mapping[int, float]) -> Callable[[Line], float]:
    """CPU seconds without those of as many executors."""
    return lambda line: line.cost.cpu - less[line.job.workers]


def rank_growth(lines: Sequence[Line]) -> Growth:
    own = [line for line in lines if line.job.group == jobs.RANKS]
    return Growth(what="training step, all ranks", of="ranks", lines=own, size=_count("ranks"), claimed=0.0)


def loss_growths(lines: Sequence[Line]) -> list[Growth]:
    own = [line for line in lines if line.job.group == jobs.LOSS]
    return [
        Growth(what="memory", of="pairs of the batch", lines=own, size=_count("batch"), cost=_gib),
        Growth(what="time", of="pairs of the batch", lines=own, size=_count("batch"), claimed=2.0),
    ]


def _of(lines: Sequence[Line], group: str, what: str) -> list[Line]:
    return [line for line in lines if (line.job.group, line.job.what) == (group, what)]


# ---------------------------------------------------------------- as Markdown


HEADER = (
    "what",
    "of",
    "n",
    "CPU s",
    "wall s",
    "GiB",
    "ms for one more",
    "exponent",
    "above the fixed cost",
    "claimed",
    "verdict",
)
ABOUT = f"""CPU seconds, wall seconds and peak memory (pages that processes share counted once) are those of a stage's
command and all that it starts, Java and Python workers among them; of several rounds the medians. The first figure of a
cell is that of the tiny shop ({stages.TINY:,} clicks), most of which is fixed: starting Java, the session, the encoder; what
the largest costs above it, by n, are the milliseconds for one more. An
exponent is the slope of CPU seconds over n on logs, without the tiny shop, with its 95% interval (t distribution). "Above
the fixed cost" is b of a + k n^b, least squares on logs over all shops. Superlinear, or more than claimed, is what lies
above the claim by more than {MARGIN:g} with the lower end of that interval. Memory of a stage is what Java takes before it
collects, not what the stage needs."""
OF_VOCABULARY = """One term retired in the largest shop: nothing is encoded (anything else ends the run), all items are
scored anew."""
OF_WORKERS = f"""On `{jobs.CLUSTER.format("1 or 2")}`, the smallest shop but the tiny one. Each executor is a Java of its
own; the second row of a stage is without what a tiny shop costs on as many."""
OF_RANKS = f"""A step of `published` by DeepSpeed (ZeRO {jobs.ZERO_STAGE}, fp32, gloo), {jobs.GLOBAL_BATCH} pairs on all
ranks together, the median of {jobs.STEPS}; memory is a rank's. More ranks than cores take turns: their wall says nothing,
their CPU seconds do."""
OF_LOSS = """Forward and back, in a process of its own; memory is that above the interpreter's. Every pair of the batch meets
every other, so of time 2 is claimed."""


def page(plan: Plan, lines: Sequence[Line], figure: str) -> str:
    """The whole page, of the lines of a plan."""
    night = stage_growths(plan, lines)
    parts = ["# Growth of cost", _said_of(plan, lines), ABOUT]
    if night:
        parts += [_conclusion(night), f"![CPU seconds by size]({figure})", "## Stages of a night", _growth_table(night)]
    if jobs.VOCABULARY in plan.chosen:
        parts += ["## A change of the vocabulary", OF_VOCABULARY, _vocabulary_table(plan, lines)]
    if jobs.WORKERS in plan.chosen:
        parts += ["## Spark's executors", OF_WORKERS, _growth_table(worker_growths(plan, lines))]
    if jobs.RANKS in plan.chosen:
        growth = rank_growth(lines)
        parts += ["## Training ranks", OF_RANKS, _growth_table([growth]), _sent_table(growth)]
    if jobs.LOSS in plan.chosen:
        parts += ["## Loss by global batch", OF_LOSS, _growth_table(loss_growths(lines))]
    return "\n\n".join(parts) + "\n"


def _said_of(plan: Plan, lines: Sequence[Line]) -> str:
    revisions = ", ".join(sorted({line.revision for line in lines if line.revision})) or "unknown"
    days = sorted({line.at[:10] for line in lines})
    sizes = ", ".join(f"{clicks:,}" for clicks in plan.sizes)
    rounds = f"{plan.rounds} round{'s' * (plan.rounds > 1)}"
    return (
        f"`python -m benchmarks.growth`, {hardware()}. Revision {revisions}, {' to '.join(sorted({days[0], days[-1]}))}; "
        f"{rounds}, the sizes in turn at every stage. Generated shops of {sizes} clicks, an item for every "
        f"{stages.CLICKS_PER_ITEM} of them, {stages.TERMS} terms at every size."
    )


def _conclusion(night: Sequence[Growth]) -> str:
    grown = [one.what for one in night if one.verdict == SUPERLINEAR]
    undecided = [one.what for one in night if one.verdict not in (SUPERLINEAR, AS_CLAIMED)]
    said = f"Superlinear: **{', '.join(grown)}**." if grown else "No stage is shown to be superlinear."
    return said + (f" Not decided by these sizes and rounds: {', '.join(undecided)}." if undecided else "")


def _growth_table(growths: Iterable[Growth]) -> str:
    return _as_table(HEADER, map(_row, growths))


def _row(one: Growth) -> list[str]:
    by_size = one.by_size()
    cells = (
        " / ".join(f"{one.size(lines[0]):,.0f}" for lines in by_size),
        _cells((line.cost.cpu if one.cost is _gib else one.cost(line) for line in lines) for lines in by_size),
        _cells((line.cost.wall for line in lines if line.cost.wall is not None) for lines in by_size),
        _cells((line.cost.gib for line in lines) for lines in by_size),
    )
    above = _shown(one.above) if one.tiny else ""
    each = "" if one.each is None else f"{1e3 * one.each:.3g}"
    return [one.what, one.of, *cells, each, _shown(one.total), above, f"{one.claimed:g}", one.verdict]


def _shown(found: Exponent | None) -> str:
    return "none" if found is None else str(found)


def _cells(by_size: Iterable[Iterable[float]]) -> str:
    """Medians over the rounds, by size."""
    return " / ".join(_number(median(chosen)) for values in by_size if (chosen := list(values)))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _as_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def _vocabulary_table(plan: Plan, lines: Sequence[Line]) -> str:
    """What the first night cost beside what it costs when a term was retired."""
    rows = []
    for what in jobs.AFTER_VOCABULARY:
        first, after = (
            [line for line in _of(lines, group, what) if line.job.size == plan.sizes[-1]]
            for group in (jobs.NIGHT, jobs.VOCABULARY)
        )
        cpu = [median(map(_cpu, side)) for side in (first, after)]
        encoded = [f"{side[-1].counts['encoded']:,.0f}" for side in (first, after)]
        rows.append([what, " / ".join(encoded), *map(_number, cpu), f"{cpu[1] / cpu[0]:.2f}"])
    header = ("stage", "texts encoded, first night / after", "CPU s, first night", "CPU s, after", "of the first")
    return _as_table(header, rows)


def _sent_table(growth: Growth) -> str:
    """Bytes beside those of the formula."""
    rows = []
    for ranks in sorted(set(growth.sizes)):
        own = [line for line in growth.lines if line.counts["ranks"] == ranks]
        sent, formula = (median(line.counts[name] for line in own) for name in ("sent", "formula"))
        ratio = f"{sent / formula:.3f}" if formula else ""
        rows.append([f"{ranks:.0f}", f"{sent / 1e6:.1f}", f"{formula / 1e6:.1f}", ratio])
    return _as_table(("ranks", "MB sent a rank", "by the formula", "of the formula"), rows)
