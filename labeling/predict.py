"""Label a day's catalogue from its stored vectors: ITEM_EMBEDDINGS -> staged ITEM_TERMS and ITEM_CATEGORIES."""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from etl import config, tables
from etl.catalogue import catalogue_version, read_catalogue
from etl.code import code_version
from etl.config import SparkJobConfig
from etl.contracts import CATALOGUE, ITEM_CATEGORIES, ITEM_EMBEDDINGS, ITEM_TERMS, LEVELS, PAIRS
from etl.errors import InputError
from etl.inputs import version_of
from etl.job import run_job
from etl.runs import expected_cost, record_stage
from etl.session import hold, start_session
from etl.taxonomy import Taxonomy, load_taxonomy
from etl.vocabulary import Vocabulary, load_vocabulary
from etl.warehouse import Warehouse
from labeling.clicked import clicked_terms, term_forms
from labeling.encoding import labelling_bundle
from labeling.examples import EXAMPLES, count_examples, drawn_examples, example_sums, told_categories, with_examples
from labeling.few_shot import Shots
from labeling.lineage import changes, constants, last_lineage
from labeling.overrides import read_overrides
from labeling.product_text import with_texts
from labeling.redundancy import MAX_SIMILARITY
from labeling.scoring import SCORED_SCHEMA, Scorer, ScoringSettings, score_items
from model.bundle import Bundle, load_bundle

log = logging.getLogger(__name__)

NO_CLICKS = {"evidence": F.array, "clicked": F.create_map}
"""What clicks say of an item that has none."""

LACKING = "vector IS NULL AND reason IS NULL"
"""Of an item's row beside its stored vector: it was not encoded yet."""


class PredictConfig(SparkJobConfig):
    """Settings of the labelling job; all but ``partitions`` and ``dry_run`` are part of the run's identity."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "predict")

    bundle: str = ""
    """Bundle whose vectors are labelled, by its id; empty: the champion."""

    partitions: Annotated[int, Field(ge=0)] = 0
    """Spark partitions for scoring; 0: twice the cores. The labels do not depend on it."""

    min_probability: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Least calibrated probability of a term that is given. Below one half because the calibration counts a right
    term that nobody happened to click as wrong, so its probabilities are too low."""

    max_gap: Annotated[float, Field(ge=0, le=2)] = 0.15
    """Largest distance, in cosine, of a further term from the best one."""

    max_terms: Annotated[int, Field(ge=1, le=10)] = 5
    """Most terms that an item is given; titles with more than five product terms are lists of keywords."""

    max_similarity: Annotated[float, Field(ge=0, le=2)] = MAX_SIMILARITY
    """Cosine of two terms' nearest forms from which on they count as one, and the more probable one is given (jeans,
    trousers); 2: only those that have the same words, or one the words of the other and the same head (shoes, running
    shoes), do. In the sample the second of two such terms was wrong 6 times of 6, between .7 and .8 it was 6 times of 17."""

    min_letters: Annotated[int, Field(ge=0)] = 2
    """Least letters of a text that gets labels, a Chinese character counting as two: numbers alone say nothing of what a
    thing is. 0 where the shoppers of a shop do ask for bare numbers."""

    min_step_probability: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Least probability of a child given its parent for the category path to go on down."""

    few_shot: bool = False
    """Whether seller_category of the catalogue and category overrides that name a node move the tree's vectors. Categories
    are then not calibrated: their temperature was fitted without examples."""

    few_shot_prior: Annotated[float, Field(gt=0)] = 16.0
    """How many examples a node's own prompts count for."""

    few_shot_examples: Annotated[int, Field(ge=1, le=1_000)] = 64
    """Most examples of a node, drawn by the hash of their texts."""

    evidence_queries: Annotated[int, Field(ge=0, le=20)] = 3
    """Clicked queries that are kept with an item's terms as evidence, strongest first."""

    dry_run: bool = False
    """Only say what changed since the day was labelled last, what would be scored and what it would cost; nothing is
    written."""

    @property
    def writes(self) -> bool:
        """A dry run does not."""
        return not self.dry_run


@dataclass(frozen=True, slots=True)
class Run:
    """All that the labels of a day depend on; ``lineage`` holds the columns that every row carries."""

    bundle: Bundle
    vocabulary: Vocabulary | None
    taxonomy: Taxonomy | None
    told: DataFrame | None
    """Rows of :func:`labeling.examples.told_categories`; None without few-shot."""
    inputs: Mapping[str, str]
    lineage: Mapping[str, str]

    @property
    def id(self) -> str:
        return self.lineage["run_id"]


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(PredictConfig, "labeller predict", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), PredictConfig, run, argv)


def run(settings: PredictConfig) -> Mapping[str, Any]:
    """Stage the labels of one day.

    Raises:
        InputError: bundle, catalogue, pairs, vocabulary or taxonomy cannot be used, or titles are not encoded yet.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(settings)
    spark = start_session("labeller predict", settings)
    bundle = load_bundle(labelling_bundle(warehouse, settings.bundle))
    template = bundle.tokenizer.spec.product_text
    catalogue = read_catalogue(spark, warehouse, settings.ds, template).persist(StorageLevel.DISK_ONLY)
    this = identify(spark, warehouse, settings, bundle, catalogue)
    if settings.dry_run:
        found = plan(spark, warehouse, settings.ds, this, catalogue)
        catalogue.unpersist()
        return found
    items = vectors(spark, warehouse, settings.ds, bundle, catalogue)
    counts: dict[str, int | float] = {}
    shots: Shots | None = None
    held = ExitStack()
    if this.told is not None:
        drawn = hold(drawn_examples(items, this.told, settings.few_shot_examples), held)
        shots = Shots(settings.few_shot_prior, example_sums(drawn))
        items = with_examples(items, drawn)
        counts |= count_examples(this.told, drawn)
    pairs = day_pairs(spark, warehouse, settings.ds)
    forms = [] if this.vocabulary is None else term_forms(this.vocabulary, bundle.tokenizer.normalise)
    items = items.join(evidence(pairs, settings.evidence_queries), on="item_id", how="left")
    items = items.join(clicked_terms(pairs, forms), on="item_id", how="left")
    scorer = Scorer.build(this.bundle, this.vocabulary, this.taxonomy, scoring_settings(settings), shots)
    if scorer.calibration.max_similarity not in (None, settings.max_similarity):
        log.warning(
            "[predict] max_similarity is %g, the probabilities were fitted for %g: set that of [calibrate], too",
            *(settings.max_similarity, scorer.calibration.max_similarity),
        )
    scored = score(items, scorer, settings.partitions).persist(StorageLevel.DISK_ONLY)
    begun = time.monotonic()
    counts["items"] = scored.count()
    counts["scoring_seconds"] = round(time.monotonic() - begun, 3)
    if this.vocabulary is None:
        log.warning("vocabulary is declared absent: no %s for ds=%s", ITEM_TERMS.name, settings.ds)
    else:
        counts["term_rows"] = _stage(
            as_item_terms(scored, settings.ds, this.lineage), warehouse, ITEM_TERMS, settings.ds, this
        )
        counts |= _by(scored, "terms", F.coalesce(F.col("terms")[0]["reason"], F.lit("labelled")))
    if this.taxonomy is None:
        log.warning("taxonomy is declared absent: no %s for ds=%s", ITEM_CATEGORIES.name, settings.ds)
    else:
        _stage(as_item_categories(scored, settings.ds, this.lineage), warehouse, ITEM_CATEGORIES, settings.ds, this)
        counts |= _by(scored, "categories", F.col("category.stopped"))
    held.close()
    for frame in (scored, catalogue):
        frame.unpersist()
    versions = {table.name: version_of(spark, warehouse, table, [settings.ds]) for table in (CATALOGUE, PAIRS)}
    inputs = dict(this.inputs) | {name: f"{this.inputs[name]} {version}" for name, version in versions.items()}
    record_stage(
        spark, warehouse, settings.ds, "predict",
        inputs=inputs, counts=counts, seconds=time.monotonic() - started, run_id=this.id, bundle=this.bundle.id,
        settings=identity_settings(settings),
    )  # fmt: skip
    return counts | {"run_id": this.id, "staging": warehouse.staging}


def scoring_settings(settings: PredictConfig) -> ScoringSettings:
    return ScoringSettings(
        min_probability=settings.min_probability,
        max_gap=settings.max_gap,
        max_terms=settings.max_terms,
        max_similarity=settings.max_similarity,
        min_letters=settings.min_letters,
        min_step_probability=settings.min_step_probability,
    )


def plan(spark: SparkSession, warehouse: Warehouse, ds: dt.date, this: Run, catalogue: DataFrame) -> dict[str, Any]:
    """What a run would do, said and as figures; writes nothing. Whatever changed, all items are scored again."""
    items, lacking = catalogue.count(), joined_vectors(spark, warehouse, this.bundle, catalogue).where(LACKING).count()
    changed = changes(last_lineage(spark, warehouse, ds), this.lineage)
    log.info("plan: since ds=%s was labelled last, changed: %s", ds, ", ".join(changed) or "nothing, the same rows come out")
    log.info("plan: score %d items from stored vectors of bundle %s, without the encoder", items, this.bundle.id)
    if lacking:
        log.warning("plan: %d items have no vector yet (`labeller embed --dry-run` says what they cost)", lacking)
    cost = expected_cost(spark, warehouse, "predict", this.bundle.id, done="items", timed="scoring_seconds", units=items)
    log.info("plan: cost %s", cost or "unknown, since no run of this stage has measured a rate yet")
    log.info("dry run: nothing was written")
    return {
        "items": items,
        "without_vector": lacking,
        "changed": ",".join(changed) or "nothing",
        "cost_seconds": "unknown" if cost is None else round(cost.seconds),
        "run_id": this.id,
    }


def identify(
    spark: SparkSession, warehouse: Warehouse, settings: PredictConfig, bundle: Bundle, catalogue: DataFrame
) -> Run:
    """Load vocabulary and taxonomy, and name the run after everything that its rows depend on.

    Raises:
        InputError: one of them cannot be used, or both vocabulary and taxonomy are declared absent.
    """
    if len(set(settings.absent)) == 2:
        raise InputError(
            "vocabulary and taxonomy are both declared absent: there is nothing to label with; give one of them"
        )
    vocabulary = None if "vocabulary" in settings.absent else load_vocabulary(spark, warehouse)
    taxonomy = None if "taxonomy" in settings.absent else load_taxonomy(spark, warehouse)
    # By content: a rerun of `pairs`, or another day in the same table, makes another table version of the same rows.
    inputs = {
        PAIRS.name: tables.content_version(day_pairs(spark, warehouse, settings.ds)),
        CATALOGUE.name: catalogue_version(catalogue),
    }
    told = None
    if settings.few_shot and taxonomy is not None:
        overrides = read_overrides(spark, warehouse, settings.ds, vocabulary, taxonomy)
        told = told_categories(catalogue, overrides, taxonomy)
        inputs[EXAMPLES] = tables.content_version(told)
    parts = {
        "bundle": bundle.id,
        "calibration": bundle.calibration_id or "default",
        "vocabulary": vocabulary.version if vocabulary else "",
        "taxonomy": taxonomy.version if taxonomy else "",
        "code": code_version(),
        "settings": json.dumps(identity_settings(settings), sort_keys=True),
        "inputs": json.dumps(inputs, sort_keys=True),
    }
    identity = json.dumps(parts, sort_keys=True)
    run_id = f"{settings.ds}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    return Run(bundle, vocabulary, taxonomy, told, inputs, {"run_id": run_id} | parts)


def identity_settings(settings: PredictConfig) -> dict[str, Any]:
    """Settings that the labels depend on."""
    fields = set(PredictConfig.model_fields) - set(SparkJobConfig.model_fields) - {"partitions", "bundle", "dry_run"}
    return settings.model_dump(mode="json", include=fields)


def vectors(spark: SparkSession, warehouse: Warehouse, ds: dt.date, bundle: Bundle, catalogue: DataFrame) -> DataFrame:
    """Rows item_id, text, vector, reason of every item of the day.

    Raises:
        InputError: the day's texts are not all encoded by this bundle.
    """
    joined = joined_vectors(spark, warehouse, bundle, catalogue)
    lacking = joined.where(LACKING).count()
    if lacking:
        raise InputError(
            f"{ITEM_EMBEDDINGS.name}: {lacking} items of catalogue/ds={ds} have no vector of bundle {bundle.id} "
            "(expected one, or a reason, for each): run `labeller embed` for that day and bundle first"
        )
    return joined.drop("text_hash")


def joined_vectors(spark: SparkSession, warehouse: Warehouse, bundle: Bundle, catalogue: DataFrame) -> DataFrame:
    """Rows item_id, text_hash, text, vector, reason of a day; LACKING where a text is not encoded yet."""
    texts = catalogue.transform(with_texts(bundle.tokenizer.normalise)).select("item_id", "text_hash", "text")
    stored = tables.read(spark, warehouse.table(ITEM_EMBEDDINGS), ITEM_EMBEDDINGS, bundle=bundle.id)
    return texts.join(stored.select("text_hash", "vector", "reason"), on="text_hash", how="left")


def evidence(pairs: DataFrame, most: int) -> DataFrame:
    """PAIRS -> item_id, evidence: the queries that led to clicks on each item, strongest first, ties by the query."""
    # Numbered and cut first: then no task lists more of an item, of which there may be 10^6 queries.
    place = F.row_number().over(Window.partitionBy("item_id").orderBy(F.desc("weight"), "query"))
    kept = pairs.select("item_id", "query", place.alias("place")).where(F.col("place") <= most)
    return kept.groupBy("item_id").agg(F.sort_array(F.collect_list(F.struct("place", "query")))["query"].alias("evidence"))


def score(items: DataFrame, scorer: Scorer, partitions: int = 0) -> DataFrame:
    """Rows item_id, text, vector, reason, evidence, clicked -> rows of SCORED_SCHEMA, one for one."""
    context = items.sparkSession.sparkContext
    shared = context.broadcast(scorer)
    types = dict(items.dtypes)
    rows = items.withColumns({name: F.coalesce(name, none().cast(types[name])) for name, none in NO_CLICKS.items()})

    def label(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return score_items(batches, shared.value)

    return rows.repartition(partitions or 2 * context.defaultParallelism, "item_id").mapInArrow(label, SCORED_SCHEMA)


def as_item_terms(scored: DataFrame, ds: dt.date, lineage: Mapping[str, str]) -> DataFrame:
    """SCORED_SCHEMA -> ITEM_TERMS."""
    rows = scored.select("item_id", "evidence", F.explode("terms").alias("label")).select("item_id", "evidence", "label.*")
    return rows.withColumns(constants(ds, lineage)).select(*ITEM_TERMS.names)


def as_item_categories(scored: DataFrame, ds: dt.date, lineage: Mapping[str, str]) -> DataFrame:
    """SCORED_SCHEMA -> ITEM_CATEGORIES; the level columns hold the first names of a path that is deeper still."""
    rows = scored.select("item_id", "category.*")
    levels = {f"level_{n}": F.get("path", F.lit(n - 1)) for n in range(1, LEVELS + 1)}
    return rows.withColumns(levels | constants(ds, lineage)).select(*ITEM_CATEGORIES.names)


def day_pairs(spark: SparkSession, warehouse: Warehouse, ds: dt.date) -> DataFrame:
    """PAIRS of one day.

    Raises:
        InputError: there are none.
    """
    pairs = tables.read(spark, warehouse.table(PAIRS), PAIRS, ds=ds)
    if pairs.isEmpty():
        raise InputError(
            f"pairs/ds={ds} has 0 rows (expected >= 1, they are the labels' evidence): run `labeller pairs` first"
        )
    return pairs


def _stage(frame: DataFrame, warehouse: Warehouse, table: Any, ds: dt.date, this: Run) -> int:
    return tables.write_slice(frame, warehouse.staged(table), table, {"ds": ds}, this.lineage)


def _by(scored: DataFrame, prefix: str, outcome: Any) -> dict[str, int]:
    found = scored.groupBy(outcome.alias("outcome")).count().orderBy("outcome").collect()
    return {f"{prefix}_{row['outcome']}": row["count"] for row in found}


if __name__ == "__main__":
    sys.exit(main())
