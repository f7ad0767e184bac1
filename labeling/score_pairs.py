"""Scores given pairs of query and item with the vectors that are live: a feature for a ranker. Starts no Spark.

IN.csv has the columns query and item_id; OUT.csv gets all its rows and columns in their order, and behind them score (the
cosine) and reason: empty, or why there is no score.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from etl.errors import EXIT_OK, InputError
from etl.job import configure_logging
from etl.warehouse import Warehouse
from labeling.encoding import encode_good, labelling_bundle
from labeling.item_index import ItemIndex, live_item_index
from labeling.term_search import DECIMALS
from labeling.terminal import add_root_argument
from model.bundle import Bundle, load_bundle

log = logging.getLogger(__name__)

COLUMNS = ("query", "item_id")
ADDED = ("score", "reason")
EMPTY_QUERY, UNKNOWN_ITEM, NOT_ENCODABLE = "empty_query", "unknown_item", "not_encodable"
"""No word in the query; an item that the live index does not hold, or that has no text; a query the encoder fails on."""

_CHUNK = 65_536  # pairs whose vectors are gathered at once: 134 MB of float64 at 256 dimensions
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores float64 [N], not a number where ``reasons`` says why."""

    scores: np.ndarray
    reasons: list[str]


def score_pairs(index: ItemIndex, bundle: Bundle, queries: Sequence[str], item_ids: Sequence[str]) -> Scored:
    """Cosine of each raw query and the item beside it; each distinct query is encoded once.

    Raises:
        InputError: the index is of another bundle.
    """
    if bundle.id != index.bundle:
        raise InputError(
            f"item index {index.path} is of bundle {index.bundle}, the queries would be of {bundle.id} (expected one bundle "
            "for both: cosines between two mean nothing): load that one"
        )
    normal = [bundle.tokenizer.spec.normalise.normal_form(query) for query in queries]
    distinct = list(dict.fromkeys(filter(None, normal)))
    good, vectors = encode_good(bundle, distinct, "query")
    row_of = {distinct[place]: row for row, place in enumerate(good)}
    places = index.places_of(pa.array(item_ids, pa.string()))
    reasons = [
        EMPTY_QUERY if not query else NOT_ENCODABLE if query not in row_of else UNKNOWN_ITEM if place < 0 else ""
        for query, place in zip(normal, places.tolist(), strict=True)
    ]
    scores = np.full(len(normal), np.nan)
    known = np.flatnonzero([not reason for reason in reasons])
    for start in range(0, len(known), _CHUNK):
        pairs = known[start : start + _CHUNK]
        asked = vectors[[row_of[normal[pair]] for pair in pairs]].astype(np.float64)
        scores[pairs] = np.einsum("nd,nd->n", asked, index.vectors[places[pairs]].astype(np.float64)).round(DECIMALS) + 0.0
    return Scored(scores, reasons)


def score_file(root: str, source: Path, target: Path) -> dict[str, Any]:
    """Score the pairs of a CSV file with what is live under ``root``; returns the figures of the summary.

    Raises:
        InputError: no live index or bundle, or a file that cannot be read.
    """
    pairs = read_pairs(source)
    index = live_item_index(root)
    bundle = load_bundle(labelling_bundle(Warehouse.at(root), index.bundle))
    queries, items = (pairs[name].fill_null("").to_list() for name in COLUMNS)
    found = score_pairs(index, bundle, queries, items)
    reasons = [reason or None for reason in found.reasons]
    pairs.with_columns(pl.Series("score", found.scores).fill_nan(None), pl.Series("reason", reasons)).write_csv(target)
    counts: dict[str, Any] = {"pairs": len(pairs), "scored": found.reasons.count("")}
    for reason, values in ((EMPTY_QUERY, queries), (UNKNOWN_ITEM, items), (NOT_ENCODABLE, queries)):
        named = [value for value, why in zip(values, found.reasons, strict=True) if why == reason]
        counts[reason] = len(named)
        if named and reason == UNKNOWN_ITEM:  # queries stay out of logs
            shown = ", ".join(map(repr, list(dict.fromkeys(named))[:_SHOWN]))
            log.warning("%d pairs have items that the index of %s does not hold, or that have no text, such as %s",
                        len(named), index.manifest["ds"], shown)  # fmt: skip
        elif named:
            log.warning("%d pairs get no score: %s, see column reason of %s", len(named), reason, target)
    return counts | {"ds": index.manifest["ds"], "bundle": index.bundle, "path": str(target)}


def read_pairs(source: Path) -> pl.DataFrame:
    """The rows of a CSV file as texts.

    Raises:
        InputError: it cannot be read, lacks query or item_id, or has a column that would be added.
    """
    try:
        frame = pl.read_csv(source, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{source} cannot be read as CSV (expected columns {', '.join(COLUMNS)}): {error}") from None
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise InputError(f"{source} lacks the columns {missing} (found {frame.columns})")
    if taken := [name for name in ADDED if name in frame.columns]:
        raise InputError(f"{source} has columns {taken} already, which would be added: rename them")
    return frame


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labeller score-pairs", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", metavar="IN.csv", type=Path, help="pairs to score")
    parser.add_argument("target", metavar="OUT.csv", type=Path, help="where they go with their scores")
    add_root_argument(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arg_parser().parse_args(argv)
    configure_logging()
    try:
        print(json.dumps(score_file(args.root, args.source, args.target)))
    except InputError as error:
        print(f"labeller score-pairs: error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
