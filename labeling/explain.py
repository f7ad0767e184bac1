"""Where the label of an item comes from: the live row, people's overrides, and what made it, down to versions. No Spark."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
from rich.markup import escape
from rich.table import Table as RichTable

from etl.config import JobConfig, from_args
from etl.contracts import ITEM_CATEGORIES, ITEM_TERMS, LABELS_CURRENT, LINEAGE, OVERRIDES, RUNS, Table
from etl.durable import read_json
from etl.errors import EXIT_OK, InputError
from etl.polars_scan import scan
from etl.warehouse import Warehouse, is_delta
from labeling import local_tables
from labeling.terminal import add_root_argument, console, day
from model.bundle import MANIFEST_FILE, METRICS_FILE, read_calibration

LINEAGE_NAMES = tuple(column.name for column in LINEAGE)


@dataclass(frozen=True, slots=True)
class Origin:
    """All that is on record of one item's label; rows are those of the tables."""

    item_id: str
    live: Mapping[str, Any] | None
    """Row of LABELS_CURRENT; None: the item is not live."""
    overrides: Sequence[Mapping[str, Any]]
    """Every row that people have set for it, ended ones too, newest first."""
    ds: dt.date | None
    """Day of the history that ``terms`` and ``category`` are of; None: no day that is kept holds the item."""
    run_id: str | None
    """Run that they are of: that of the live row, unless its day was made again since or is no longer kept."""
    terms: Sequence[Mapping[str, Any]]
    """Rows of ITEM_TERMS, best first; one of rank 0 with the reason where the model abstained."""
    category: Mapping[str, Any] | None
    lineage: Mapping[str, Any]
    """Columns LINEAGE of the live row, of a day that is asked for those of its rows; ``inputs`` as a mapping from table to
    version."""
    bundle: Mapping[str, Any]
    """``id``, ``ds``, ``heldout`` figures and ``calibration`` id; ``missing`` where it is no longer there."""
    stages: Sequence[Mapping[str, Any]]
    """Rows of RUNS of that day: what each stage read (table versions) and when."""


def explain(warehouse: Warehouse, item_id: str, ds: dt.date | None = None) -> Origin:
    """What is on record of an item: of ``ds``, else of what made its live row.

    Where the history has that run's evidence no more, the newest day's stands in for it, and is said to.

    Raises:
        InputError: neither what is live nor the history holds the item (of ``ds``, if that is given).
    """
    live = next(iter(_rows(warehouse, LABELS_CURRENT, pl.col("item_id") == item_id)), None)
    found, terms, category = _history(warehouse, item_id, live, ds)
    if not terms and category is None and (ds or live is None):
        raise InputError(
            f"{warehouse.root} has no label of item {item_id!r}{f' on ds={ds}' if ds else ' now'}: is the id written as in "
            "the catalogue, and was that day published (`labeller status`)? Of an item that is no longer sold say the --ds "
            "of a day when it was"
        )
    said = next(iter(terms), category)
    made = said if ds or live is None else live
    assert made is not None, "otherwise refused above"
    lineage = {name: made.get(name) for name in LINEAGE_NAMES}  # rows of before may lack some
    return Origin(
        item_id=item_id,
        live=live,
        overrides=_overrides(warehouse, item_id),
        ds=found if said else None,
        run_id=said["run_id"] if said else None,
        terms=terms,
        category=category,
        lineage=lineage | {"inputs": json.loads(made["inputs"])},
        bundle=_bundle(warehouse, made["bundle"]),
        stages=_stages(warehouse, made["ds"]),
    )


def _rows(warehouse: Warehouse, table: Table, where: pl.Expr) -> list[dict[str, Any]]:
    path = warehouse.table(table)
    return scan(path).filter(where).collect().to_dicts() if is_delta(path) else []


def _history(
    warehouse: Warehouse, item_id: str, live: Mapping[str, Any] | None, ds: dt.date | None
) -> tuple[dt.date | None, list[dict[str, Any]], dict[str, Any] | None]:
    """Day, ITEM_TERMS and row of ITEM_CATEGORIES: of ``ds``, else of the run that made the live row, else the newest."""
    days = {day for table in (ITEM_TERMS, ITEM_CATEGORIES) for day in local_tables.days(warehouse, table)}
    newest = max(days, default=None)
    wanted = [ds] if ds else [live["ds"], newest] if live else [newest]
    for each in wanted:
        of_item = (pl.col("ds") == pl.lit(each, dtype=pl.Date)) & (pl.col("item_id") == item_id)
        terms = sorted(_rows(warehouse, ITEM_TERMS, of_item), key=lambda row: row["rank"])
        category = next(iter(_rows(warehouse, ITEM_CATEGORIES, of_item)), None)
        said = next(iter(terms), category)
        if said and (ds or live is None or each == newest or said["run_id"] == live["run_id"]):
            return each, terms, category
    return None, [], None


def _overrides(warehouse: Warehouse, item_id: str) -> list[dict[str, Any]]:
    if not warehouse.has(OVERRIDES) or warehouse.source(OVERRIDES).table:  # a metastore is read by Spark only
        return []
    rows = local_tables.read(warehouse, OVERRIDES).filter(pl.col("item_id") == item_id)
    return rows.sort("at", "what", "value", descending=True).to_dicts()


def _bundle(warehouse: Warehouse, bundle_id: str) -> dict[str, Any]:
    path = warehouse.bundle(bundle_id)
    if not (path / MANIFEST_FILE).is_file():
        return {"id": bundle_id, "missing": f"no longer at {path}"}
    manifest, calibration = read_json(path / MANIFEST_FILE), read_calibration(path)
    return {
        "id": bundle_id,
        "ds": manifest["ds"],
        "heldout": read_json(path / METRICS_FILE).get("heldout", {}),
        "trained_on": manifest["lineage"],
        "calibration": calibration["id"] if calibration else "",
    }


def _stages(warehouse: Warehouse, ds: dt.date) -> list[dict[str, Any]]:
    rows = sorted(_rows(warehouse, RUNS, pl.col("ds") == ds), key=lambda row: row["finished_at"])
    names = ("stage", "run_id", "bundle", "code", "finished_at")
    return [{name: row[name] for name in names} | {"inputs": json.loads(row["inputs"])} for row in rows]


# ---------------------------------------------------------------- for a terminal


def as_table(origin: Origin) -> RichTable:
    """What a person asks first stands first: what is live and who decided it, then why, then what made it."""
    shown = RichTable("", "", box=None, show_header=False, pad_edge=False)
    shown.columns[0].no_wrap, shown.columns[0].style, shown.columns[1].overflow = True, "bold", "fold"
    for name, text in _lines(origin):
        shown.add_row(name, escape(text))
    return shown


def _lines(origin: Origin) -> Iterator[tuple[str, str]]:
    live, made = origin.live, origin.lineage
    yield "item", f"{origin.item_id}: {live['title']}" if live else f"{origin.item_id}: not live"
    if live:
        yield "live term", _label(live, "term", live["term"])
        yield "live category", _label(live, "category", live["category_path"])
        yield "live since", f"{live['ds']}, run {live['run_id']}"
    for row in origin.overrides:
        until = f" until {row['until']}" if row.get("until") else ""
        yield "override", f"{row['what']} {row['value']} by {row['author']} at {row['at']}{until}"
    if origin.ds is None:
        yield "history", "no day that is kept holds the item: its evidence is gone"
    else:
        yield "", ""
        yield "model, day", f"{origin.ds}, run {origin.run_id}{_other_run(origin)}"
        yield from _why(origin)
    yield "", ""
    for name in ("run_id", "code", "vocabulary", "taxonomy", "calibration"):
        yield name, str(made[name])
    yield "bundle", _as_text(origin.bundle)
    for table, version in made["inputs"].items():
        yield f"read of {table}", str(version)
    for stage in origin.stages:
        yield f"stage {stage['stage']}", f"{stage['finished_at']:%Y-%m-%d %H:%M} read {_as_text(stage['inputs'])}"


def _other_run(origin: Origin) -> str:
    """A warning where the evidence is not of the run that made the live label."""
    if origin.lineage["run_id"] == origin.run_id:
        return ""
    return ": another run than that of the live label, whose day was made again since or is no longer kept"


def _why(origin: Origin) -> Iterator[tuple[str, str]]:
    for row in origin.terms:
        if row["term_id"] is None:
            yield "no term", row["reason"]
        else:
            hit = "in the title" if row["lexical_hit"] else "not in the title"
            figures = (f"{name} {_number(row[name])}" for name in ("probability", "score", "cosine", "margin"))
            yield f"term {row['rank']}", f"{row['term']} ({row['term_id']}): {', '.join(figures)}; {hit}"
    if origin.terms:
        first = origin.terms[0]
        yield "runner-up", f"{first['runner_up']} ({first['runner_up_id']})" if first["runner_up_id"] else "none"
        yield "clicked for", ", ".join(map(repr, first["evidence"])) or "no query on record"
    if origin.category:
        steps = zip(origin.category["path"], origin.category["probabilities"], strict=True)
        path = " > ".join(f"{name} {_number(probability)}" for name, probability in steps)
        yield "category", f"{path or 'none'}; stopped: {origin.category['stopped']}"


def _label(live: Mapping[str, Any], what: str, value: str | None) -> str:
    if live[f"{what}_source"] == "override":
        return f"{value} (set by a person, which wins over the model)"
    if value is None:
        return f"none: {live[f'{what}_reason']}"
    reason = live[f"{what}_reason"]
    return f"{value} (model, probability {_number(live[f'{what}_probability'])}{f', {reason}' if reason else ''})"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _as_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, default=str, ensure_ascii=False)


# ---------------------------------------------------------------- the command


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labeller explain", description=__doc__, allow_abbrev=False)
    parser.add_argument("--item", required=True, metavar="ID", help="item_id, as the catalogue has it")
    parser.add_argument(
        "--ds", type=day, metavar="YYYY-MM-DD", help="what that day's run said of it (default: what is live)"
    )
    add_root_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arg_parser().parse_args(argv)
    try:
        # Any day will do: the settings of a job want one.
        settings = from_args(JobConfig, argparse.Namespace(config=None, root=args.root, ds=dt.date.min))
        origin = explain(Warehouse.of(settings), args.item, args.ds)
    except InputError as error:
        print(f"labeller explain: error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(asdict(origin), default=str, ensure_ascii=False, indent=1))
    else:
        console().print(as_table(origin))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
