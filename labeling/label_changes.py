"""What a commit to LABELS_CURRENT changed of the labels, and why: its change feed -> LABEL_CHANGES."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import tables
from etl.contracts import LABEL_CHANGES, LABELS_CURRENT, PAIRS
from etl.errors import UnreadableFiles
from etl.quarantine import naming_bad_files
from etl.session import hold
from etl.warehouse import Warehouse, is_delta
from labeling.examples import EXAMPLES
from labeling.live_log import ROLLBACK, LiveCommit, live_commits

log = logging.getLogger(__name__)

Lineage = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a half of the labels may change: some of ``compared`` differ, ``shown`` is told; SQL of ``old`` and ``new``."""

    what: str
    compared: tuple[str, ...]
    shown: str


@dataclass(frozen=True, slots=True)
class Half:
    """Terms or category of an item: each changes, and has its cause, apart from the other."""

    kinds: tuple[Kind, ...]
    """The first that fits counts."""
    source: str
    ids: str
    names: str
    """The input whose names its labels have."""
    settings: frozenset[str]
    """Settings of predict that bear on it."""


TERMS = Half(
    kinds=(
        Kind("term", ("get({}.terms.term_id, 0)", "{}.term"), "{}.term"),
        Kind("terms", ("{}.terms.term_id", "{}.terms.term"), "array_join({}.terms.term, ' | ')"),
        Kind(
            "term_confidence",
            ("{}.terms", "{}.term_probability", "{}.term_source", "{}.term_reason"),
            "string(round({}.term_probability, 4))",
        ),
    ),
    source="{}.term_source",
    ids="{}.terms.term_id",
    names="vocabulary",
    settings=frozenset({"min_probability", "max_gap", "max_terms", "max_similarity", "min_letters"}),
)
CATEGORY = Half(
    kinds=(
        Kind("category", ("{}.category_id", "{}.category_path"), "{}.category_path"),
        Kind(
            "category_confidence",
            ("{}.category_probability", "{}.category_source", "{}.category_reason"),
            "string(round({}.category_probability, 4))",
        ),
    ),
    source="{}.category_source",
    ids="{}.category_id",
    names="taxonomy",
    settings=frozenset({"min_step_probability", "few_shot", "few_shot_prior", "few_shot_examples", "min_letters"}),
)


def run_differences(before: Lineage, after: Lineage, half: Half) -> list[str]:
    """What differs between two runs and bears on one half of the labels, the likeliest cause first.

    A bundle moves every vector and brings a calibration of its own; a vocabulary or tree changes what can be given; cuts
    and calibration choose among the same scores; clicks differ every night and move a term's probability only; the code
    comes last, since most changes of it touch no label.
    """
    inputs = [json.loads(each["inputs"] or "{}") for each in (before, after)]
    # A row of before there was this column says nothing of them.
    known = before["settings"] is not None and after["settings"] is not None
    cuts = [_settings(each, half) for each in (before, after)]
    found = {
        "model": before["bundle"] != after["bundle"],
        half.names: before[half.names] != after[half.names],
        "examples": half is CATEGORY and inputs[0].get(EXAMPLES) != inputs[1].get(EXAMPLES),
        "threshold": before["calibration"] != after["calibration"] or (known and cuts[0] != cuts[1]),
        "clicks": half is TERMS and inputs[0].get(PAIRS.name) != inputs[1].get(PAIRS.name),
        "code": before["code"] != after["code"],
    }
    return [name for name, differs in found.items() if differs]


def label_changes(old: DataFrame, new: DataFrame, before: Lineage | None, after: Lineage) -> DataFrame:
    """LABELS_CURRENT of some items, before and after -> item_id, what, old, new, cause, differs.

    An item that came or went has one row; of any other each half has one if it differs. An item that differs in neither
    (another text with the same labels) has none. The cause is the first of ``differs``: a person, then another product
    text, then :func:`run_differences`; ``unknown`` where nothing that lineage records differs.

    Args:
        old: Rows as they were.
        new: Rows as they are.
        before: LINEAGE of the run that was live; None if there was none.
        after: LINEAGE of the run that is.
    """
    both = _as_struct(old, "old").join(_as_struct(new, "new"), on="item_id", how="full")
    came, went = F.col("old").isNull(), F.col("new").isNull()
    item = F.when(came, _change("new", "{}.term", _names("new_item"))).when(
        went, _change("gone", "{}.term", _names("gone_item"))
    )
    halves = [
        F.when(~came & ~went, _half_change(half, run_differences(before or after, after, half)))
        for half in (TERMS, CATEGORY)
    ]
    changes = both.select("item_id", F.explode(F.array(item, *halves)).alias("change")).where("change IS NOT NULL")
    cause = F.coalesce(F.get("differs", F.lit(0)), F.lit("unknown"))
    return changes.select("item_id", "change.*").withColumn("cause", cause)


def record_changes(spark: SparkSession, warehouse: Warehouse) -> dict[str, int]:
    """Write LABEL_CHANGES of every commit that lacks them, as after a crash; returns rows by cause.

    Rows depend on the table's log alone, so whoever comes next writes what the one that crashed would have.
    """
    commits = live_commits(warehouse)
    recorded = -1
    if is_delta(warehouse.table(LABEL_CHANGES)):
        of_runs = {(commit.version, commit.run_id) for commit in commits}
        rows = tables.read(spark, warehouse.table(LABEL_CHANGES), LABEL_CHANGES).select("live_version", "run_id").distinct()
        # Versions of a table that was moved away and made anew since are no versions of this one.
        recorded = max((row[0] for row in rows.collect() if tuple(row) in of_runs), default=-1)
    counts: Counter[str] = Counter()
    for number, commit in reversed(list(enumerate(commits))):
        if commit.version > recorded and commit.changes_of is not None:
            before = commits[number + 1].lineage if number + 1 < len(commits) else None
            with ExitStack() as held:
                counts += _record(spark, warehouse, commit, commit.changes_of, before, held)
    return {f"changed_{cause}": rows for cause, rows in sorted(counts.items())}


def _record(
    spark: SparkSession, warehouse: Warehouse, commit: LiveCommit, day: dt.date, before: Lineage | None, held: ExitStack
) -> Counter[str]:
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    reader = reader.option("startingVersion", commit.version).option("endingVersion", commit.version)
    feed = hold(reader.load(warehouse.table(LABELS_CURRENT)), held)
    if not _is_kept(feed, commit):
        return Counter(unrecorded=1)
    old = feed.where("_change_type IN ('delete', 'update_preimage')")
    new = feed.where("_change_type IN ('insert', 'update_postimage')")
    found = label_changes(old, new, before, commit.lineage)
    if commit.stage == ROLLBACK:
        found = found.withColumn("cause", F.lit(ROLLBACK))
    lineage = {name: F.lit(value).cast("string") for name, value in commit.lineage.items()}
    rows = found.withColumns({"ds": F.lit(day), "live_version": F.lit(commit.version).cast("bigint"), **lineage})
    slice_: dict[str, str | dt.date] = {"ds": day, "live_version": str(commit.version)}
    path = warehouse.table(LABEL_CHANGES)
    tables.write_slice(rows, path, LABEL_CHANGES, slice_, {"stage": commit.stage, **slice_, **commit.lineage})
    written = tables.read(spark, path, LABEL_CHANGES, ds=day, live_version=commit.version)
    return Counter({row["cause"]: row["count"] for row in written.groupBy("cause").count().collect()})


def _is_kept(feed: DataFrame, commit: LiveCommit) -> bool:
    """Whether the feed of a commit can still be read; a vacuum may have come before whoever records it.

    The labels are live all the same, and no later day may wait for what nobody can tell any more.
    """
    try:
        with naming_bad_files():
            feed.count()
    except UnreadableFiles as gone:
        log.error(
            "%s will lack what %s version %d changed: %s", LABEL_CHANGES.name, LABELS_CURRENT.name, commit.version, gone
        )
        return False
    return True


def _settings(lineage: Lineage, half: Half) -> dict[str, object]:
    return {name: value for name, value in json.loads(lineage["settings"] or "{}").items() if name in half.settings}


def _as_struct(rows: DataFrame, name: str) -> DataFrame:
    return rows.select("item_id", F.struct(*LABELS_CURRENT.names).alias(name))


def _half_change(half: Half, run: Sequence[str]) -> Column:
    """The first kind of change that fits; null if none does."""
    differs = _differences(half, run)
    return F.coalesce(*(F.when(_differ(*kind.compared), _change(kind.what, kind.shown, differs)) for kind in half.kinds))


def _differences(half: Half, run: Sequence[str]) -> Column:
    """All that differs for an item. Of a label that people set before and after only they, or its name, can be the cause."""
    sources = [F.expr(half.source.format(side)) == "override" for side in ("old", "new")]
    by_person = sources[0] & sources[1]
    person = F.when((sources[0] | sources[1]) & (~by_person | _differ(half.ids)), _names("override")).otherwise(_names())
    # Rows of before there was a hash are compared by what they show. Another bundle may hash the same title otherwise.
    changed = F.when(F.expr("old.text_hash IS NULL"), _differ("{}.title")).otherwise(_differ("{}.text_hash"))
    if "model" in run:
        changed = changed & _differ("{}.title")
    text = F.when(~by_person & changed, _names("title")).otherwise(_names())
    rest = F.when(by_person, _names(*(name for name in run if name == half.names))).otherwise(_names(*run))
    return F.concat(person, text, rest)


def _change(what: str, shown: str, differs: Column) -> Column:
    sides = (F.expr(shown.format(side)).alias(side) for side in ("old", "new"))
    return F.struct(F.lit(what).alias("what"), *sides, differs.alias("differs"))


def _differ(*compared: str) -> Column:
    """Null-safe: whether any of some expressions differs between ``old`` and ``new``."""
    same = " AND ".join(f"{each.format('old')} <=> {each.format('new')}" for each in compared)
    return ~F.expr(same)


def _names(*names: str) -> Column:
    return F.array(*map(F.lit, names)).cast("array<string>")
