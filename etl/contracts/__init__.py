"""Every table's columns, types, keys and meaning, once, as plain data.

Spark schemas, Delta tables with their comments and constraints, input checks and the data dictionary
are all derived from here (:mod:`etl.tables`, :mod:`etl.inputs`). Nothing is imported from pyspark.
"""

from __future__ import annotations

from etl.contracts.inputs import (
    CATALOGUE,
    CLICK_LOG,
    EARLIEST,
    INPUTS,
    MAX_TITLE_CHARACTERS,
    OVERRIDES,
    TAXONOMY,
    VOCABULARY,
)
from etl.contracts.labels import (
    FILE_RETENTION_DAYS,
    ITEM_CATEGORIES,
    ITEM_EMBEDDINGS,
    ITEM_TERMS,
    LABELS_CURRENT,
    LEVELS,
    WHY_NO_TERM,
)
from etl.contracts.pairs import ETL_COUNTS, PAIRS, SPLITS, TITLE_GROUPS
from etl.contracts.records import ANNOTATION_SAMPLE, CAUSES, CHANGED, LABEL_CHANGES, QUALITY, RUNS
from etl.contracts.related import (
    CATEGORY_MISMATCH,
    COPY_KEYWORDS,
    PROPOSALS,
    QUERY_ITEMS,
    RELATED,
    SIMILAR_ITEMS,
    TERM_CANDIDATES,
)
from etl.contracts.table import LINEAGE, Column, Table

OUTPUTS = (
    PAIRS,
    TITLE_GROUPS,
    ETL_COUNTS,
    ITEM_EMBEDDINGS,
    ITEM_TERMS,
    ITEM_CATEGORIES,
    LABELS_CURRENT,
    LABEL_CHANGES,
    *RELATED,
    ANNOTATION_SAMPLE,
    QUALITY,
    RUNS,
)

STAGED = (ITEM_TERMS, ITEM_CATEGORIES)
"""Outputs that a run lays down in staging first, where they wait for their audit."""

__all__ = [
    "ANNOTATION_SAMPLE",
    "CATALOGUE",
    "CATEGORY_MISMATCH",
    "CAUSES",
    "CHANGED",
    "CLICK_LOG",
    "COPY_KEYWORDS",
    "EARLIEST",
    "ETL_COUNTS",
    "FILE_RETENTION_DAYS",
    "INPUTS",
    "ITEM_CATEGORIES",
    "ITEM_EMBEDDINGS",
    "ITEM_TERMS",
    "LABELS_CURRENT",
    "LABEL_CHANGES",
    "LEVELS",
    "LINEAGE",
    "MAX_TITLE_CHARACTERS",
    "OUTPUTS",
    "OVERRIDES",
    "PAIRS",
    "PROPOSALS",
    "QUALITY",
    "QUERY_ITEMS",
    "RELATED",
    "RUNS",
    "SIMILAR_ITEMS",
    "SPLITS",
    "STAGED",
    "TAXONOMY",
    "TERM_CANDIDATES",
    "TITLE_GROUPS",
    "VOCABULARY",
    "WHY_NO_TERM",
    "Column",
    "Table",
]
