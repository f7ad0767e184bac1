"""What a shop brings: clicks, catalogue, vocabulary, tree, and what people set by hand."""

from __future__ import annotations

import datetime as dt

from etl.contracts.table import Column, Table

_ID_TYPES = ("bigint", "int")
_DAY_TYPES = ("string",)

EARLIEST = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)  # clocks that lost their battery say 1970 or 1980
MAX_TITLE_CHARACTERS = 2_000  # the longest real titles seen have some 300; a page pasted into the field has more

CLICK_LOG = Table(
    "click_log",
    "What shoppers were shown and did; one row is one event.",
    (
        Column("ds", "date", "Day of the partition (UTC).", accepts=_DAY_TYPES),
        Column("event_time", "timestamp", "When it happened (UTC).", accepts=("timestamp_ntz",)),
        Column("user_id", "string", "Who; never leaves etl.", accepts=_ID_TYPES),
        Column(
            "session_id",
            "string",
            "Visit, where the shop knows it; never leaves etl.",
            nullable=True,
            optional=True,
            accepts=_ID_TYPES,
        ),
        Column("query", "string", "What was typed, raw.", nullable=True),
        Column("item_id", "string", "Which item.", accepts=_ID_TYPES),
        Column("event", "string", "impression, click, cart or order."),
        Column(
            "position",
            "int",
            "Rank on the result page, from 1.",
            nullable=True,
            optional=True,
            accepts=("bigint", "smallint"),
        ),
        Column(
            "dwell_ms", "bigint", "Time on the item's page, milliseconds.", nullable=True, optional=True, accepts=("int",)
        ),
    ),
    keys=(),
    partition_by=("ds",),
)

CATALOGUE = Table(
    "catalogue",
    "The items on sale on a day; one row is one item.",
    (
        Column("ds", "date", "Day of the snapshot (UTC).", accepts=_DAY_TYPES),
        Column("item_id", "string", "Which item.", accepts=_ID_TYPES),
        Column("title", "string", "The seller's title, raw.", nullable=True),
        Column("language", "string", "Language of the title, as BCP 47.", nullable=True, optional=True),
        Column("updated_at", "timestamp", "Last change by the seller (UTC).", nullable=True, accepts=("timestamp_ntz",)),
        Column(
            "seller_category", "string", "Category that the seller chose.", nullable=True, optional=True, accepts=_ID_TYPES
        ),
    ),
    keys=("ds", "item_id"),
    partition_by=("ds",),
)

VOCABULARY = Table(
    "vocabulary",
    "The curated product terms; one row is one term.",
    (
        Column("term_id", "string", "Which term.", accepts=_ID_TYPES),
        Column("term", "string", "Its canonical form.", nullable=True),
        Column("synonyms", "array<string>", "Other forms of the same term.", nullable=True),
        Column("language", "string", "Language of the canonical form.", nullable=True),
        Column("status", "string", "active terms are used, others are not.", nullable=True),
    ),
    keys=("term_id",),
)

TAXONOMY = Table(
    "taxonomy",
    "The category tree; one row is one node.",
    (
        Column("category_id", "string", "Which node.", accepts=_ID_TYPES),
        Column("parent_id", "string", "Its parent; null for a root.", nullable=True, accepts=_ID_TYPES),
        Column("name", "string", "Its name.", nullable=True),
    ),
    keys=("category_id",),
)

OVERRIDES = Table(
    "overrides",
    "Labels set by people; they win over the model's. Optional.",
    (
        Column("item_id", "string", "Which item.", accepts=_ID_TYPES),
        Column("what", "string", "term or category."),
        Column("value", "string", "term_id or category_id."),
        Column("author", "string", "Who decided."),
        Column("at", "timestamp", "When (UTC).", accepts=("timestamp_ntz",)),
        Column("until", "timestamp", "End of validity (UTC).", nullable=True, optional=True, accepts=("timestamp_ntz",)),
    ),
    keys=("item_id", "what", "value"),
)

INPUTS = (CLICK_LOG, CATALOGUE, VOCABULARY, TAXONOMY, OVERRIDES)
