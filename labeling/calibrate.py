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
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession

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
from etl.vocabulary import Vocabulary, load_vocabulary
from etl.warehouse import Warehouse
from labeling.categories import CategoryTree
from labeling.clicked import TRAIN, Clicked, clicked_items, term_forms
from labeling.clicked_titles import title_sums
from labeling.encoding import labelling_bundle
from labeling.probability import DEFAULT_TEMPERATURE, FORMAT
from labeling.redundancy import MAX_SIMILARITY
from labeling.scoring import term_index
from labeling.term_curves import choose_weight, fit_terms
from labeling.term_prototypes import TermPrototypes, remove_others
from labeling.term_search import TermIndex
from labeling.terms import TermLabeller
from labeling.vectors import unit
from model.bundle import Bundle, add_calibration, candidate, load_bundle
from model.model_card import write_card

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

    lexical_weights: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Weights of a lexical score to try (.02 .05 .1 .2): a term that stands in the text gets so much beside its cosine. The
    best by hit@1 on held-out items is taken, if it is surely better than none (95%, paired bootstrap). In titles that name
    their things it helps; where a title names other things, what its clicks say of it comes second."""

    clicked_titles: Annotated[int, Field(ge=0, le=10_000)] = 32
    """Most titles that move the vector of a term for which training saw them clicked, drawn by their hashes; 0: a term is
    what it is called. All of the sample's (125 at most) are worth no more than 32."""

    clicked_prior: Annotated[float, Field(gt=0)] = 3.0
    """How many titles a term's name counts for. Less finds more of what titles do not say and a little less of what they do;
    chosen on Taobao's dev titles (`docs/terms.md`). From 1 to 10 the sample's hit@1 stays within .003."""

    max_similarity: Annotated[float, Field(ge=0, le=2)] = MAX_SIMILARITY
    """As `[predict] max_similarity`: curves are of the candidates that could be given."""

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
    trained_on = bundle.manifest["lineage"].get("dataset")
    if not settings.bundle and trained_on != settings.ds.isoformat():
        raise InputError(
            f"candidate {bundle.id} was trained on the dataset of {trained_on} (expected {settings.ds}: another day's "
            f"training ended since): run `labeller calibrate --ds {trained_on}`, or train on {settings.ds} again"
        )
    spark = start_session("labeller calibrate", settings)
    pairs = tables.read(spark, warehouse.table(PAIRS), PAIRS, ds=settings.ds)
    if pairs.isEmpty():
        raise InputError(f"pairs/ds={settings.ds} has 0 rows (expected >= 1): run `labeller pairs` for that day first")
    # By the bundle's template; that of the pairs may be another by now.
    catalogue = read_catalogue(spark, warehouse, settings.ds, bundle.tokenizer.spec.product_text)
    texts = catalogue.select("item_id", "text")
    content: dict[str, Any] = {"format": FORMAT, "ds": str(settings.ds), "files": {}}
    if "vocabulary" not in settings.absent:
        vocabulary = load_vocabulary(spark, warehouse)
        prototypes = term_prototypes(pairs, catalogue, vocabulary, bundle, settings)
        if prototypes is not None:
            content["files"] = dict([prototypes.store(bundle)])
        content["terms"] = calibrate_terms(pairs, texts, term_index(bundle, vocabulary, prototypes), bundle, settings)
    if "taxonomy" not in settings.absent:
        log.info("next the temperature of the category tree")
        content["categories"] = calibrate_categories(pairs, texts, bundle, warehouse, settings)
    calibration_id = add_calibration(path, content)
    write_card(path)
    remove_others(bundle, {*content["files"], *(bundle.calibration or {}).get("files", {})})
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
    pairs: DataFrame, texts: DataFrame, index: TermIndex, bundle: Bundle, settings: CalibrateConfig
) -> dict[str, Any]:
    """Content of ``terms`` of the calibration, see :func:`fit_terms`, for the vocabulary ``index``."""
    normalise, labeller = bundle.tokenizer.normalise, TermLabeller(index)
    forms = [(form, int(term)) for form, term in zip(index.forms, index.form_terms, strict=True)]
    weights = (0.0, *settings.lexical_weights)
    content: dict[str, Any] = {}
    for splits in HELD_OUT:
        items = clicked_items(pairs, texts, forms, splits, settings.max_items)
        normal = [normalise(item.text) for item in items]
        ranked = labeller.search.candidates(encode_items(bundle, items), normal, weights)
        chosen, hits = choose_weight(items, ranked)
        told = [labeller.distinct(of, settings.max_similarity) for of in ranked[chosen]]
        content = fit_terms(items, told, [language_of(text) for text in normal], settings)
        content |= {"lexical_weight": weights[chosen], "hit@1": dict(zip(map(str, weights), hits, strict=True))}
        content["max_similarity"] = settings.max_similarity
        if content["calibrated"]:
            return content | {"source": splits[0]}
    log.warning(
        "terms stay uncalibrated: %d items of %d queries (expected >= %d of >= %d)",
        content["cases"], content["queries"], settings.min_cases, settings.min_queries,
    )  # fmt: skip
    return content


def term_prototypes(
    pairs: DataFrame, catalogue: DataFrame, vocabulary: Vocabulary, bundle: Bundle, settings: CalibrateConfig
) -> TermPrototypes | None:
    """Of the forms that queries of training are; None if there are none, or none are wanted."""
    if not settings.clicked_titles:
        return None
    forms = {form for form, _ in term_forms(vocabulary, bundle.tokenizer.normalise)}
    sums = title_sums(pairs, catalogue, forms, bundle, settings.clicked_titles)
    log.info("clicked titles move the vectors of %d of %d forms of terms", len(sums), len(forms))
    return TermPrototypes.build(bundle, sums, settings.clicked_prior) if sums else None


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
    """The temperature under which the clicked nodes are likeliest (Guo et al. 2017), on a fixed grid."""
    gold = [(item, node) for item, found in enumerate(items) for node in sorted(found.held_out)]
    item_index, node_index = np.array(gold, dtype=np.int64).T
    scores_LN = tree.scores(vectors_ND)
    losses = [-float(tree.log_paths(scores_LN, t)[node_index, item_index].mean()) for t in TEMPERATURES.tolist()]
    best = int(np.argmin(losses))
    return {"temperature": round(float(TEMPERATURES[best]), 6), "nll": round(losses[best], 6)}


# ---------------------------------------------------------------- both


def encode_items(bundle: Bundle, items: Sequence[Clicked]) -> np.ndarray:
    """Unit vectors float64 [N, D], by way of float16 like those of the night."""
    vectors = bundle.encode([item.text for item in items], side="title").astype(np.float16).astype(np.float64)
    return unit(vectors)


def _shown(content: Mapping[str, Any]) -> dict[str, Any]:
    terms, categories = content.get("terms", {}), content.get("categories", {})
    figures = {"terms_calibrated": terms.get("calibrated"), "terms_ece": terms.get("first", {}).get("ece")}
    return figures | {"temperature": categories.get("temperature"), "temperature_from": categories.get("source")}


if __name__ == "__main__":
    sys.exit(main())
