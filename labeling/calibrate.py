"""Fit score -> probability on held-out clicks and store it in the candidate bundle: PAIRS -> calibration.json.

On items that no training saw rather than on queries that it did not see: a night's terms are mostly ones that were clicked,
on titles that mostly were not. With curves of held-out queries the sample's items without clicks were .11 off the truth,
with those of held-out items .03 (expected calibration error).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
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
from etl.text import by_script, language_of
from etl.vocabulary import load_vocabulary
from etl.warehouse import Warehouse
from labeling.categories import CategoryTree
from labeling.clicked import TRAIN, Clicked, clicked_items, term_forms
from labeling.encoding import labelling_bundle
from labeling.probability import DEFAULT_TEMPERATURE, FORMAT, Curve
from labeling.reliability import expected_calibration_error
from labeling.terms import TermIndex, TermSearch
from model.bundle import Bundle, add_calibration, candidate, load_bundle

log = logging.getLogger(__name__)

HELD_OUT = (("item", "valid"), ("valid",))
"""Splits whose clicks are fitted on: those of items that training never saw; where they are too few, those for queries that
it never saw. ``test`` is left to the gate and the audit."""

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

    min_language_items: Annotated[int, Field(ge=2)] = 200
    """Least number of items in a language for curves of its own. With the 51 Latin ones of the sample a curve of their own
    seemed better (by the clicks of the other half of the queries), and hit@1 fell from .907 to .903: steps are cliffs."""

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


def calibrate_terms(
    pairs: DataFrame, texts: DataFrame, bundle: Bundle, warehouse: Warehouse, settings: CalibrateConfig
) -> dict[str, Any]:
    """Content of ``terms`` of the calibration, see :func:`fit_terms`."""
    vocabulary = load_vocabulary(pairs.sparkSession, warehouse)
    normalise = bundle.tokenizer.normalise
    search = TermSearch(TermIndex.build(vocabulary, partial(bundle.encode, side="query"), normalise))
    content: dict[str, Any] = {}
    for splits in HELD_OUT:
        items = clicked_items(pairs, texts, term_forms(vocabulary, normalise), splits, settings.max_items)
        languages = [language_of(normalise(item.text)) for item in items]
        content = fit_terms(items, search.candidates(encode_items(bundle, items)), languages, settings)
        if content["calibrated"]:
            return content | {"source": splits[0]}
    log.warning(
        "terms stay uncalibrated: %d items of %d queries (expected >= %d of >= %d)",
        content["cases"], content["queries"], settings.min_cases, settings.min_queries,
    )  # fmt: skip
    return content


class Case(NamedTuple):
    """An item's candidate, and whether a held-out click on the item was for one of its forms."""

    best: bool
    """Whether it is the item's best candidate."""
    score: float
    right: bool
    query: int
    language: str
    """Of the item's text."""


def fit_terms(
    items: Sequence[Clicked],
    candidates: Sequence[Sequence[tuple[int, float]]],
    languages: Sequence[str],
    settings: CalibrateConfig,
) -> dict[str, Any]:
    """Two curves, for best and for further candidates, from items whose main term no query of training led to.

    Terms that led to a click on an item in training are left out: of them the encoder has been told. What bends the curves:
    a right term that nobody clicked counts as wrong, and the labels of the night include pairs that were trained on
    (both make probabilities too low); only items enter that have a clicked term at all (for others they are too high).

    Args:
        items: The items.
        candidates: (term, score) of each, best first.
        languages: Of their texts, by :func:`etl.text.language_of`; one with enough cases gets curves of its own.
        settings: What is enough.
    """
    cases = [
        Case(rank == 0, score, term in item.held_out, item.query_id, language)
        for item, ranked, language in zip(items, candidates, languages, strict=True)
        for rank, (term, score) in enumerate(ranked)
        if term not in item.trained
    ]
    content: dict[str, Any] = {"cases": len(items), "queries": len({item.query_id for item in items}), "calibrated": False}
    kinds = {"first": [case for case in cases if case.best], "further": [case for case in cases if not case.best]}
    if len(kinds["first"]) < settings.min_cases or content["queries"] < settings.min_queries or not kinds["further"]:
        return content
    by_language = {
        language: {kind: fit_language(found, language, count, settings) for kind, found in kinds.items()}
        for language, count in sorted(Counter(languages).items())
    }
    fitted = {kind: fit_curve(found) for kind, found in kinds.items()}
    return content | {"calibrated": True} | fitted | {"languages": by_language}


def fit_curve(cases: Sequence[Case]) -> dict[str, Any]:
    """Knots, and the calibration error of a curve from half of the queries on the rest."""
    half, rest = halves_by_query(cases, cases)
    content = {"knots": isotonic(cases), "cases": len(cases), "right": sum(case.right for case in cases)}
    return content | (_error(_measured(half, rest), rest) if rest else {})


def fit_language(cases: Sequence[Case], language: str, items: int, settings: CalibrateConfig) -> dict[str, Any]:
    """The curve of one language: ``own`` with its knots, or ``joint``, that of all of ``cases``.

    An own curve needs enough items and queries, as many right and wrong cases as queries, and to be nearer (by Brier's
    score) to what was clicked: fitted on half of the queries, measured on the others of the language. ``ece`` is that of
    the curve that was taken.
    """
    of_language = [case for case in cases if case.language == language]
    queries = {case.query for case in of_language}
    right = sum(case.right for case in of_language)
    content: dict[str, Any] = {"curve": "joint", "cases": len(of_language), "queries": len(queries), "right": right}
    own_half, rest = halves_by_query(of_language, cases)
    joint_half, _ = halves_by_query(cases, cases)
    if not rest:
        return content
    measured = {"joint": _measured(joint_half, rest)}
    rarer = min(right, len(of_language) - right)
    if own_half and items >= settings.min_language_items and min(len(queries), rarer) >= settings.min_queries:
        measured["own"] = _measured(own_half, rest)
    clicked = np.array([case.right for case in rest], dtype=np.float64)
    curve = min(measured, key=lambda name: float(np.square(measured[name] - clicked).mean()))
    content |= {"curve": curve} | _error(measured[curve], rest)
    return content | ({"knots": isotonic(of_language)} if curve == "own" else {})


def halves_by_query(cases: Sequence[Case], joint: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """The cases of every other query of ``joint``, and the rest: with one query on both sides a curve would look better."""
    chosen = set(sorted({case.query for case in joint})[::2])
    return [case for case in cases if case.query in chosen], [case for case in cases if case.query not in chosen]


def _measured(fitted_on: Sequence[Case], cases: Sequence[Case]) -> np.ndarray:
    return Curve.of(isotonic(fitted_on)).at(np.array([case.score for case in cases]))


def _error(probabilities: np.ndarray, cases: Sequence[Case]) -> dict[str, Any]:
    error = expected_calibration_error(probabilities, np.array([case.right for case in cases], dtype=np.float64))
    return {"ece": round(error, 6), "ece_cases": len(cases)}


def isotonic(cases: Sequence[Case]) -> list[list[float]]:
    """[score, probability] knots of the best non-decreasing curve (Zadrozny and Elkan 2002).

    Its ends keep away from 0 and 1 by the rule of succession: a hundred cases cannot show a certainty.
    """
    scores = np.array([case.score for case in cases])
    right = np.array([case.right for case in cases], dtype=np.float64)
    low, high = 1 / (len(right) + 2), 1 - 1 / (right.sum() + 2)
    fitted = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(scores, right)
    return [
        [round(float(x), 6), round(float(y), 6)] for x, y in zip(fitted.X_thresholds_, fitted.y_thresholds_, strict=True)
    ]


# ---------------------------------------------------------------- categories


def calibrate_categories(
    pairs: DataFrame, texts: DataFrame, bundle: Bundle, warehouse: Warehouse, settings: CalibrateConfig
) -> dict[str, Any]:
    """Content of ``categories`` of the calibration.

    Fitted on held-out items clicked for the name of one node, in one of its scripts or in all, or on those that held-out
    names led to. Where neither suffice, clicks of training stand in, and the temperature is too sharp; where these do not
    either, it is that of the training's softmax. ``calibrated`` is then false.
    """
    tree = CategoryTree.build(load_taxonomy(pairs.sparkSession, warehouse), partial(bundle.encode, side="query"))
    nodes: defaultdict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(map(bundle.tokenizer.normalise, tree.names)):
        for text in {name, *by_script(name)}:  # shoppers type one half of "Dresses 连衣裙"
            nodes[text].append(position)
    unique = [(name, positions[0]) for name, positions in nodes.items() if len(positions) == 1]
    content: dict[str, Any] = {}
    for splits in (*HELD_OUT, (TRAIN,)):
        items = clicked_items(pairs, texts, unique, splits, settings.max_items)
        content = {"cases": sum(len(i.held_out) for i in items), "queries": len({i.query_id for i in items})}
        if content["cases"] >= settings.min_cases and content["queries"] >= settings.min_queries:
            fitted = fit_temperature(tree, encode_items(bundle, items), items)
            return content | fitted | {"source": splits[0], "calibrated": splits in HELD_OUT}
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


# ---------------------------------------------------------------- both


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
