"""Fit score -> probability on held-out clicks and store it in the candidate bundle: PAIRS -> calibration.json."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.isotonic import IsotonicRegression

from etl import config, tables
from etl.catalogue import read_catalogue
from etl.config import SparkJobConfig
from etl.contracts import CATALOGUE, PAIRS
from etl.errors import InputError
from etl.inputs import version_of
from etl.job import run_job
from etl.runs import record_stage
from etl.session import start_session
from etl.taxonomy import load_taxonomy
from etl.text import by_script
from etl.vocabulary import load_vocabulary
from etl.warehouse import Warehouse
from labeling.categories import CategoryTree
from labeling.encoding import labelling_bundle
from labeling.probability import DEFAULT_TEMPERATURE, FORMAT, Curve
from labeling.terms import TermIndex, TermSearch
from model.bundle import Bundle, add_calibration, candidate, load_bundle

log = logging.getLogger(__name__)

HELD_OUT = "valid"
"""Split whose queries training never saw; ``test`` is left to the gate."""

TEMPERATURES = np.geomspace(0.005, 1.0, 93)  # 6% apart; the likelihood is flatter than that


class CalibrateConfig(SparkJobConfig):
    """Settings of the calibration job."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "calibrate")

    bundle: str = ""
    """Bundle to calibrate, by its id; empty: the candidate that the last training made."""

    min_cases: Annotated[int, Field(ge=2)] = 50
    """Least number of items (for categories: of item and node) to fit on; with fewer the documented default stands in."""

    min_queries: Annotated[int, Field(ge=2)] = 10
    """Least number of distinct queries that they come from: items of one query are no independent cases."""

    max_items: Annotated[int, Field(ge=10)] = 5_000
    """Most items that are encoded for either fit, drawn by their hash; more do not move the curve."""


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(CalibrateConfig, "labeller calibrate", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), CalibrateConfig, run, argv)


def run(settings: CalibrateConfig) -> Mapping[str, Any]:
    """Fit and store.

    Raises:
        InputError: no candidate, no pairs or catalogue of that day, or a vocabulary or taxonomy that cannot be used.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(settings)
    path = labelling_bundle(warehouse, settings.bundle) if settings.bundle else candidate(warehouse)
    if path is None:
        raise InputError(f"{warehouse.bundles} has no candidate bundle: run `labeller train` first, or give --bundle")
    bundle = load_bundle(path)
    spark = start_session("labeller calibrate", settings)
    pairs = tables.read(spark, warehouse.table(PAIRS), PAIRS, ds=settings.ds)
    if pairs.isEmpty():
        raise InputError(f"pairs/ds={settings.ds} has 0 rows (expected >= 1): run `labeller pairs` for that day first")
    # By the bundle's template; that of the pairs may be another by now.
    texts = read_catalogue(spark, warehouse, settings.ds, bundle.tokenizer.spec.product_text).select("item_id", "text")
    content: dict[str, Any] = {"format": FORMAT, "ds": str(settings.ds)}
    if "vocabulary" not in settings.absent:
        content["terms"] = calibrate_terms(pairs, texts, bundle, warehouse, settings)
    if "taxonomy" not in settings.absent:
        log.info("next the temperature of the category tree")
        content["categories"] = calibrate_categories(pairs, texts, bundle, warehouse, settings)
    calibration_id = add_calibration(path, content)
    counts = {
        f"{half}_{key}": content[half][key]
        for half in ("terms", "categories")
        if half in content
        for key in ("cases", "queries")
    }
    if not settings.bundle:
        record_training(spark, warehouse, bundle, settings)
    record_stage(
        spark, warehouse, settings.ds, "calibrate",
        inputs={table.name: version_of(spark, warehouse, table, [settings.ds]) for table in (CATALOGUE, PAIRS)},
        counts=counts, seconds=time.monotonic() - started, bundle=bundle.id,
    )  # fmt: skip
    return counts | {"calibration": calibration_id, "bundle": bundle.id} | _shown(content)


def record_training(spark: SparkSession, warehouse: Warehouse, bundle: Bundle, settings: CalibrateConfig) -> None:
    """Write the row of RUNS of the training that made the candidate: the training itself runs without Spark."""
    counts = {**bundle.metrics["counts"], "steps": bundle.metrics["settings"]["steps"]}
    record_stage(
        spark, warehouse, settings.ds, "train", inputs=bundle.manifest["lineage"]["inputs"], counts=counts,
        seconds=bundle.metrics["seconds"], bundle=bundle.id,
    )  # fmt: skip


# ---------------------------------------------------------------- terms


@dataclass(frozen=True, slots=True)
class Clicked:
    """One item with clicks for labels: which in training, which only in the held-out split, and whose query that was."""

    text: str
    trained: frozenset[int]
    held_out: frozenset[int]
    query_id: int
    """The held-out query that led to it; items of one query are alike."""


def calibrate_terms(
    pairs: DataFrame, texts: DataFrame, bundle: Bundle, warehouse: Warehouse, settings: CalibrateConfig
) -> dict[str, Any]:
    """Content of ``terms`` of the calibration, see :func:`fit_terms`."""
    vocabulary = load_vocabulary(pairs.sparkSession, warehouse)
    normalise = bundle.tokenizer.normalise
    search = TermSearch(TermIndex.build(vocabulary, partial(bundle.encode, side="query"), normalise))
    forms = [(normalise(form), position) for position, term in enumerate(vocabulary.terms) for form in term.forms]
    items = clicked_items(pairs, texts, forms, HELD_OUT, settings.max_items)
    return fit_terms(items, search.candidates(encode_items(bundle, items)), settings)


def fit_terms(
    items: Sequence[Clicked], candidates: Sequence[Sequence[tuple[int, float]]], settings: CalibrateConfig
) -> dict[str, Any]:
    """Two curves, for best and for further candidates, from items whose main term only held-out queries led to.

    A case is (item, candidate term), right if a held-out query that is a form of the term led to a click on the item.
    Terms that led to a click on it in training are left out: of them the encoder has been told. What bends the curves:
    a right term that nobody clicked counts as wrong, and the labels of the night include pairs that were trained on
    (both make probabilities too low); only items enter that have a clicked term at all (for others they are too high).
    """
    cases = [
        (rank == 0, score, term in item.held_out, item.query_id)
        for item, ranked in zip(items, candidates, strict=True)
        for rank, (term, score) in enumerate(ranked)
        if term not in item.trained
    ]
    content: dict[str, Any] = {"cases": len(items), "queries": len({item.query_id for item in items}), "calibrated": False}
    first, further = ([case[1:] for case in cases if case[0] is best] for best in (True, False))
    if len(first) < settings.min_cases or content["queries"] < settings.min_queries or not further:
        log.warning("terms stay uncalibrated: %d items of %d queries (expected >= %d of >= %d)",
                    len(first), content["queries"], settings.min_cases, settings.min_queries)  # fmt: skip
        return content
    return content | {"calibrated": True, "first": fit_curve(first), "further": fit_curve(further)}


def fit_curve(cases: Sequence[tuple[float, bool, int]]) -> dict[str, Any]:
    """Knots from (score, right, query) cases, and the calibration error of a curve from half of the queries on the rest.

    Halves are by query: with items of one query on both sides the curve would look better than it is.
    """
    scores, right, queries = (np.array(column) for column in zip(*cases, strict=True))
    right = right.astype(np.float64)
    half = np.isin(queries, sorted(set(queries.tolist()))[::2])
    content = {"knots": isotonic(scores, right), "cases": len(scores), "right": int(right.sum())}
    if half.all():
        return content
    measured = Curve.of(isotonic(scores[half], right[half])).at(scores[~half])
    error = expected_calibration_error(measured, right[~half])
    return content | {"ece": round(error, 6), "ece_cases": int((~half).sum())}


def isotonic(scores: np.ndarray, right: np.ndarray) -> list[list[float]]:
    """[score, probability] knots of the best non-decreasing curve (Zadrozny and Elkan 2002).

    Its ends keep away from 0 and 1 by the rule of succession: a hundred cases cannot show a certainty.
    """
    low, high = 1 / (len(right) + 2), 1 - 1 / (right.sum() + 2)
    fitted = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(scores, right)
    return [
        [round(float(x), 6), round(float(y), 6)] for x, y in zip(fitted.X_thresholds_, fitted.y_thresholds_, strict=True)
    ]


def expected_calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """Mean distance of probability and frequency over bins of equal mass (Nguyen and O'Connor 2015).

    15 bins, fewer where one would hold under 20 cases: the noise of a frequency of four cases is no calibration error.
    """
    bins = min(15, max(1, len(right) // 20))
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(p) * abs(probabilities[p].mean() - right[p].mean()) for p in parts) / max(len(order), 1))


# ---------------------------------------------------------------- categories


def calibrate_categories(
    pairs: DataFrame, texts: DataFrame, bundle: Bundle, warehouse: Warehouse, settings: CalibrateConfig
) -> dict[str, Any]:
    """Content of ``categories`` of the calibration.

    Fitted on items clicked for a held-out query that is the name of one node, in one of its scripts or in all. Trees have
    few names and few of them are held out; where they do not suffice, queries of training stand in, and the temperature is
    too sharp; where these do not either, it is that of the training's softmax. ``calibrated`` is then false.
    """
    tree = CategoryTree.build(load_taxonomy(pairs.sparkSession, warehouse), partial(bundle.encode, side="query"))
    nodes: defaultdict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(map(bundle.tokenizer.normalise, tree.names)):
        for text in {name, *by_script(name)}:  # shoppers type one half of "Dresses 连衣裙"
            nodes[text].append(position)
    unique = [(name, positions[0]) for name, positions in nodes.items() if len(positions) == 1]
    content: dict[str, Any] = {}
    for split in (HELD_OUT, "train"):
        items = clicked_items(pairs, texts, unique, split, settings.max_items)
        content = {"cases": sum(len(i.held_out) for i in items), "queries": len({i.query_id for i in items})}
        if content["cases"] >= settings.min_cases and content["queries"] >= settings.min_queries:
            fitted = fit_temperature(tree, encode_items(bundle, items), items)
            return content | fitted | {"source": split, "calibrated": split == HELD_OUT}
    log.warning("categories stay uncalibrated: %d cases of %d queries that are the name of a category", *content.values())
    temperature = bundle.metrics.get("settings", {}).get("tau", DEFAULT_TEMPERATURE)
    return content | {"temperature": temperature, "source": "training", "calibrated": False}


def fit_temperature(tree: CategoryTree, vectors_ND: np.ndarray, items: Sequence[Clicked]) -> dict[str, float]:
    """The temperature under which the steps down to the clicked nodes are likeliest (Guo et al. 2017), on a fixed grid."""
    gold = [(item, step) for item, found in enumerate(items) for node in sorted(found.held_out) for step in tree.way(node)]
    item_index, node_index = np.array(gold, dtype=np.int64).T
    scores_MN = tree.scores(vectors_ND)
    losses = [-float(tree.log_steps(scores_MN, t)[node_index, item_index].mean()) for t in TEMPERATURES.tolist()]
    best = int(np.argmin(losses))
    return {"temperature": round(float(TEMPERATURES[best]), 6), "step_nll": round(losses[best], 6)}


# ---------------------------------------------------------------- what was clicked


def clicked_items(
    pairs: DataFrame, texts: DataFrame, labels: Iterable[tuple[str, int]], split: str, most: int
) -> list[Clicked]:
    """Items of PAIRS whose strongest label only queries of ``split`` led to.

    An item whose strongest label was trained is left out: what a held-out query adds to it is mostly a misclick. With
    such items (103 of 217 of the sample) the best candidate seemed right in 47% of the cases, without them in 78%.

    Args:
        pairs: Rows of PAIRS of one day.
        texts: Rows item_id, text (raw product texts) of the catalogue; items without one are left out.
        labels: (normalised text, label) of each form or name.
        split: The split whose queries count; with ``train`` nothing is held out.
        most: Items at most; the smallest of their hashes, which is a random draw that repeats.
    """
    forms = pairs.sparkSession.createDataFrame(sorted(set(labels)), "query string, label int")
    clicked = pairs.where(F.col("split").isin(split, "train")).join(F.broadcast(forms), on="query", how="inner")
    chosen = clicked.where(F.col("split") == split).select("title_id").distinct().orderBy("title_id").limit(most)
    names = ("title_id", "text", "label", "split", "query_id", "weight")
    found: defaultdict[int, list[Any]] = defaultdict(list)
    of_chosen = clicked.join(chosen, on="title_id", how="left_semi").join(texts, on="item_id", how="inner")
    for row in of_chosen.where(F.col("text").isNotNull()).select(*names).collect():
        found[row["title_id"]].append(row)
    items = [as_clicked(rows, split) for _, rows in sorted(found.items())]
    return [item for item in items if item is not None]


def as_clicked(rows: Sequence[Any], split: str) -> Clicked | None:
    """From all PAIRS rows of one item with a label; None if a training query led to its strongest label."""
    weights: defaultdict[int, float] = defaultdict(float)
    for row in rows:
        weights[row["label"]] += row["weight"]
    trained = frozenset(row["label"] for row in rows if row["split"] != split)
    if any(weights[label] == max(weights.values()) for label in trained):
        return None
    held_out = frozenset(weights) - trained
    query_id = min(row["query_id"] for row in rows if row["label"] in held_out)
    return Clicked(min(row["text"] for row in rows), trained, held_out, query_id)


def encode_items(bundle: Bundle, items: Sequence[Clicked]) -> np.ndarray:
    """Unit vectors float64 [N, D], by way of float16 like those of the night."""
    vectors = bundle.encode([item.text for item in items], side="title").astype(np.float16).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _shown(content: Mapping[str, Any]) -> dict[str, Any]:
    terms, categories = content.get("terms", {}), content.get("categories", {})
    figures = {"terms_calibrated": terms.get("calibrated"), "terms_ece": terms.get("first", {}).get("ece")}
    return figures | {"temperature": categories.get("temperature"), "temperature_from": categories.get("source")}


if __name__ == "__main__":
    sys.exit(main())
