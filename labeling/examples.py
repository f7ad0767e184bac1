"""The day's examples for few-shot categories: what sellers and people say of the catalogue's items, drawn and summed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from etl.taxonomy import Taxonomy
from labeling.category_mismatch import seller_names, seller_node
from labeling.vectors import unit

log = logging.getLogger(__name__)

EXAMPLES = "examples"
"""Of a run's inputs: the version of :func:`told_categories`; a run without few-shot has none."""

_TOLD = pa.schema([("item_id", pa.string()), ("category_id", pa.string())])


def told_categories(catalogue: DataFrame, overrides: DataFrame | None, taxonomy: Taxonomy) -> DataFrame:
    """Rows item_id, category_id, by_person: the node that an item is said to be of, null where what is said is none.

    What a person set wins over what the seller chose; items of which neither says anything have no row.

    Args:
        catalogue: Rows item_id, seller_category of one day.
        overrides: Rows of OVERRIDES_SCHEMA, or None.
        taxonomy: The tree.
    """
    names = catalogue.sparkSession.sparkContext.broadcast(seller_names(taxonomy))

    def batches(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in found:
            nodes = [seller_node(str(given), names.value) for given in batch.column("seller_category").to_pylist()]
            yield pa.RecordBatch.from_arrays([batch.column("item_id"), pa.array(nodes, pa.string())], schema=_TOLD)

    given = catalogue.where("seller_category IS NOT NULL").select("item_id", "seller_category")
    sellers = given.mapInArrow(batches, "item_id string, category_id string")
    if overrides is None:
        return sellers.withColumn("by_person", F.lit(False))
    people = overrides.where("override_category IS NOT NULL").select(
        "item_id", F.col("override_category.category_id").alias("person_id")
    )
    return sellers.join(people, on="item_id", how="full").select(
        "item_id",
        F.coalesce("person_id", "category_id").alias("category_id"),
        F.col("person_id").isNotNull().alias("by_person"),
    )


def drawn_examples(items: DataFrame, told: DataFrame, most: int) -> DataFrame:
    """Rows text, category_id, vector: at most ``most`` texts of each node, drawn by their hash.

    A text is one example of one node, however many items have it: of the node that most people set, then of the one that
    most sellers chose, ties by id. So the draw depends on neither partitions nor the order of rows.

    Args:
        items: Rows item_id, text, vector; those without a vector are left out.
        told: Rows of :func:`told_categories`.
        most: Examples of a node at most.
    """
    named = told.where("category_id IS NOT NULL")
    said = items.where("vector IS NOT NULL").join(named, on="item_id", how="inner")
    votes = said.groupBy("text", "category_id").agg(
        (-F.sum(F.col("by_person").cast("int"))).alias("people"),
        (-F.count(F.lit(1))).alias("all"),
        F.min("vector").alias("vector"),
    )
    strongest = F.min(F.struct("people", "all", "category_id"))["category_id"]
    texts = votes.groupBy("text").agg(strongest.alias("category_id"), F.min("vector").alias("vector"))
    by_hash = Window.partitionBy("category_id").orderBy(F.xxhash64("text"), "text")
    return texts.withColumn("place", F.row_number().over(by_hash)).where(F.col("place") <= most).drop("place")


def example_sums(drawn: DataFrame) -> dict[str, np.ndarray]:
    """Category id -> sum of the unit vectors of its examples, float64 [D], added in the order of texts."""
    rows = drawn.groupBy("category_id").agg(
        F.sort_array(F.collect_list(F.struct("text", "vector")))["vector"].alias("vectors")
    )
    sums = {}
    for row in rows.toLocalIterator():
        vectors = np.stack([np.frombuffer(vector, dtype="<f2") for vector in row["vectors"]]).astype(np.float64)
        sums[row["category_id"]] = unit(vectors).sum(axis=0)
    return sums


def with_examples(items: DataFrame, drawn: DataFrame) -> DataFrame:
    """Adds ``example_of``: the id of the node that the item's text is an example of, null for most."""
    return items.join(drawn.select("text", F.col("category_id").alias("example_of")), on="text", how="left")


def count_examples(told: DataFrame, drawn: DataFrame) -> dict[str, int]:
    """How many items are said to be of a category, of those of none of the tree, examples and nodes with some; says it."""
    rows, known = told.count(), told.where("category_id IS NOT NULL").count()
    examples, nodes = drawn.count(), drawn.select("category_id").distinct().count()
    log.info("few-shot: %d items have a category of a seller or person: %d examples of %d nodes", rows, examples, nodes)
    if known < rows:
        log.warning(
            "few-shot: what is said of %d items is no id, name or path of the taxonomy, and is left out", rows - known
        )
    if not examples:
        log.warning(
            "few-shot: no example (seller_category of the catalogue is absent, empty or names no node, and no person set a "
            "category): categories are zero-shot"
        )
    return {"told": rows, "told_unknown": rows - known, "examples": examples, "nodes_with_examples": nodes}
