"""Write what else a published day's vectors give: ITEM_EMBEDDINGS, PAIRS and labels -> RELATED, and the item index."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import config, tables
from etl.contracts import (
    CATEGORY_MISMATCH,
    COPY_KEYWORDS,
    ITEM_CATEGORIES,
    LABELS_CURRENT,
    QUERY_ITEMS,
    RELATED,
    SIMILAR_ITEMS,
    TERM_CANDIDATES,
    VOCABULARY,
    Table,
)
from etl.inputs import read_input
from etl.job import run_job
from etl.lease import lock_directory
from etl.runs import record_stage
from etl.session import hold, start_session
from etl.table_lock import table_lock
from etl.text import words
from etl.warehouse import Warehouse
from labeling import category_mismatch, copy_keywords, query_items, similar_items, term_candidates
from labeling.examples import EXAMPLES
from labeling.item_index import ItemIndex, drop_leftovers, drop_unless_live, load_item_index, set_live, write_item_index
from labeling.lineage import constants
from labeling.live_log import live_state
from labeling.predict import vectors
from labeling.probability import Calibration
from labeling.published_day import PublishedDay, published_day
from labeling.relate_config import RelateConfig
from labeling.scoring import term_index

log = logging.getLogger(__name__)

STAGE = "relate"


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(RelateConfig, "labeller relate", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), RelateConfig, run, argv)


def run(settings: RelateConfig) -> Mapping[str, Any]:
    """Write the tables RELATED of a published day, and its item index; the labels are left as they are.

    Raises:
        InputError: the day was not published, its inputs changed since, or ``live.json`` names no index of this warehouse;
            nothing is written then.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(settings)
    drop_leftovers(warehouse, lock_directory(settings), settings.ds)
    spark = start_session("labeller relate", settings)
    with ExitStack() as held:
        day = published_day(spark, warehouse, settings, held)
        index = build_index(spark, warehouse, settings, day)
        counts: dict[str, int | str] = {"indexed": 0 if index is None else len(index.items)}
        try:
            for table, rows in related(spark, warehouse, settings, day, index, held).items():
                stamped = hold(rows.withColumns(constants(settings.ds, day.stamps)), held)
                stamped.count()  # before the table's lock is taken, under which other days would wait for the search
                counts[table.name] = tables.write_slice(
                    stamped, warehouse.table(table), table, {"ds": settings.ds}, day.stamps
                )
            with table_lock(spark, warehouse.table(LABELS_CURRENT)):  # a newer day may be going live
                state = live_state(warehouse)
                if index is not None and state.admits(settings.ds, day.source.columns["run_id"]):
                    set_live(warehouse, index.path)
        finally:
            if index is not None:
                drop_unless_live(warehouse, index.path)
    record_stage(
        spark, warehouse, settings.ds, STAGE, inputs=json.loads(day.stamps["inputs"]), counts=counts,
        seconds=time.monotonic() - started, run_id=day.stamps["run_id"], bundle=day.bundle.id,
    )  # fmt: skip
    return counts | {"run_id": day.stamps["run_id"]}


def build_index(spark: SparkSession, warehouse: Warehouse, settings: RelateConfig, day: PublishedDay) -> ItemIndex | None:
    """The day's item index on disk, one place a distinct text; None where there are too many of them, or none."""
    items = vectors(spark, warehouse, settings.ds, day.bundle, day.catalogue).where("vector IS NOT NULL")
    texts = items.groupBy("text").agg(
        F.sort_array(F.collect_list("item_id")).alias("items"), F.first("vector").alias("vector")
    )
    with ExitStack() as held:
        texts = hold(texts, held)
        found = texts.count()
        if not 1 <= found <= settings.max_indexed_texts:
            log.warning(
                "%d distinct texts (expected 1 to %d, [relate] max_indexed_texts): no item index is made, and %s stay empty",
                found, settings.max_indexed_texts, ", ".join(t.name for t in (SIMILAR_ITEMS, QUERY_ITEMS, TERM_CANDIDATES)),
            )  # fmt: skip
            return None
        path = write_item_index(texts, warehouse, bundle=day.bundle.id, ds=settings.ds, run_id=day.stamps["run_id"])
    return load_item_index(path, day.bundle.id)


def related(
    spark: SparkSession,
    warehouse: Warehouse,
    settings: RelateConfig,
    day: PublishedDay,
    index: ItemIndex | None,
    held: ExitStack,
) -> dict[Table, DataFrame]:
    """Rows of each of RELATED, without ds and lineage; those that cannot be made are empty, and the log says why."""
    found: dict[Table, DataFrame | None] = {
        SIMILAR_ITEMS: _similar_items(spark, settings, index) if index else None,
        QUERY_ITEMS: _query_items(settings, day, index) if index else None,
        COPY_KEYWORDS: _copy_keywords(settings, day),
        CATEGORY_MISMATCH: _category_mismatch(settings, day, held),
        TERM_CANDIDATES: _term_candidates(spark, warehouse, settings, day, index, held) if index else None,
    }
    assert set(found) == set(RELATED)
    return {table: spark.createDataFrame([], table.ddl) if rows is None else rows for table, rows in found.items()}


def _similar_items(spark: SparkSession, settings: RelateConfig, index: ItemIndex) -> DataFrame | None:
    if len(index.items) > settings.max_similar_texts:
        log.warning(
            "similar_items stays empty: %d distinct texts, of which each is compared with each (expected at most %d): raise "
            "[relate] max_similar_texts if the cluster has the time", len(index.items), settings.max_similar_texts,
        )  # fmt: skip
        return None
    return similar_items.similar_items(spark, index, settings.similar, settings.partitions)


def _query_items(settings: RelateConfig, day: PublishedDay, index: ItemIndex) -> DataFrame:
    head = query_items.head_queries(day.pairs, settings.query_share, settings.max_queries)
    return query_items.query_items(head, day.pairs, index, day.bundle, settings.recall, settings.partitions)


def _copy_keywords(settings: RelateConfig, day: PublishedDay) -> DataFrame:
    normalise = day.bundle.tokenizer.normalise
    terms = day.source.vocabulary.terms if day.source.vocabulary else ()
    forms = {term.term_id: [words(normalise(form)) for form in term.forms] for term in terms}
    return copy_keywords.copy_keywords(
        day.live, day.pairs, forms, normalise, phrases=settings.phrases, min_users=settings.min_phrase_users
    )


def _category_mismatch(settings: RelateConfig, day: PublishedDay, held: ExitStack) -> DataFrame | None:
    taxonomy = day.source.taxonomy
    if taxonomy is None:
        log.warning("category_mismatch stays empty: this warehouse has no taxonomy")
        return None
    if day.catalogue.where("seller_category IS NOT NULL").isEmpty():
        log.warning("category_mismatch stays empty: the catalogue has no column seller_category, or nothing in it")
        return None
    calibration = Calibration.of(day.bundle.calibration, day.bundle.calibration_id)
    calibrated = calibration.categories_calibrated and EXAMPLES not in day.source.inputs
    if not calibrated:
        log.warning("category_mismatch: the bundle did not calibrate categories, or few_shot is on: probabilities rank only")
    # A person who set the category has looked at the item.
    by_model = day.live.where("category_source = 'model'").select("item_id")
    ours = day.labels[ITEM_CATEGORIES].join(by_model, on="item_id", how="left_semi")
    rows = hold(category_mismatch.compared(day.catalogue, ours, taxonomy), held)
    unknown = rows.where("seller_category_id IS NULL").count()
    if unknown:
        log.warning("category_mismatch: what sellers of %d items chose is no id, name or path of the taxonomy", unknown)
    found = category_mismatch.mismatches(rows, settings.min_mismatch_probability)
    return found.withColumn("calibrated", F.lit(calibrated))


def _term_candidates(
    spark: SparkSession,
    warehouse: Warehouse,
    settings: RelateConfig,
    day: PublishedDay,
    index: ItemIndex,
    held: ExitStack,
) -> DataFrame | None:
    if day.source.vocabulary is None:
        log.warning("term_candidates stays empty: this warehouse has no vocabulary")
        return None
    terms = term_index(day.bundle, day.source.vocabulary)  # names alone: queries are compared with what terms are called
    every = read_input(spark, warehouse, VOCABULARY).toArrow().to_pylist()
    judge = term_candidates.Judge(
        terms=terms,
        known=term_candidates.known_keys(every, day.bundle.tokenizer.normalise),
        synonym_cosine=term_candidates.synonym_cosine(terms, settings.synonym_quantile),
        synonym_share=settings.synonym_share,
    )
    queries = term_candidates.supported_queries(
        day.pairs, day.live, min_clicks=settings.min_term_clicks, min_users=settings.min_term_users,
        min_items=settings.min_term_items,
    )  # fmt: skip
    rows = hold(term_candidates.judged(queries, judge, index, day.bundle, settings.partitions), held)
    return term_candidates.like_terms(rows, settings.cohesion_low, settings.cohesion_high)


if __name__ == "__main__":
    sys.exit(main())
