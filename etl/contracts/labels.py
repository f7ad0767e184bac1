"""What items are called: vectors, terms and categories by day, and what is live."""

from __future__ import annotations

from etl.contracts.table import DS, LINEAGE, LOG_RETENTION, Column, Table

ITEM_EMBEDDINGS = Table(
    "item_embeddings",
    "Vectors of product texts, kept so that only what changed is encoded again.",
    (
        Column("bundle", "string", "Encoder that made it."),
        Column("text_hash", "string", "First 32 hex digits of SHA-256 of the normalised text."),
        Column("vector", "binary", "Unit vector, little-endian float16; null if the text cannot be encoded.", nullable=True),
        Column("dim", "int", "Its length."),
        Column("reason", "string", "Why there is no vector.", nullable=True),
        Column("first_ds", "date", "Day that it was made for."),
    ),
    keys=("bundle", "text_hash"),
    partition_by=("bundle",),
)

WHY_NO_TERM = (
    "Why the system abstains: no_text (null, or no word), too_long (over 2,000 characters), too_short ([predict] "
    "min_letters), language_not_covered (training saw no titles in its script), low_probability ([predict] "
    "min_probability), tie (another term is equally near), not_encodable (the encoder failed, it is tried again)."
)

FILE_RETENTION_DAYS = 30
"""Days that files of earlier versions are kept at least, whatever a vacuum asks for: a rollback reads them."""

ITEM_TERMS = Table(
    "item_terms",
    "Product terms of every item; an item without any has one row of rank 0 with the reason.",
    (
        DS,
        Column("item_id", "string", "Which item."),
        Column("rank", "int", "1 for the most probable term; 0 where the system abstains."),
        Column("term_id", "string", "Which term.", nullable=True),
        Column("term", "string", "Its canonical form.", nullable=True),
        Column(
            "score",
            "double",
            "What candidates are ranked by: the cosine, plus the calibration's lexical weight where lexical_hit.",
            nullable=True,
        ),
        Column("probability", "double", "Calibrated probability that the term is right.", nullable=True),
        Column(
            "margin",
            "double",
            "Score minus that of the runner-up; below 0 where that one is nearer but less probable.",
            nullable=True,
        ),
        Column(
            "cosine",
            "double",
            "Cosine of item and term, best over its forms as the titles clicked for them moved them.",
            nullable=True,
        ),
        Column(
            "runner_up_id",
            "string",
            "Best term that is not given and says something else than those that are; null if there is none.",
            nullable=True,
        ),
        Column("runner_up", "string", "Its canonical form.", nullable=True),
        Column("lexical_hit", "boolean", "Whether the title contains the term or a synonym.", nullable=True),
        Column("evidence", "array<string>", "Queries that led to clicks on this item, strongest first."),
        Column("reason", "string", WHY_NO_TERM, nullable=True),
        *LINEAGE,
    ),
    keys=("ds", "item_id", "rank"),
    partition_by=("ds",),
    properties={"delta.logRetentionDuration": LOG_RETENTION},
    checks={
        "term_or_reason": "(rank = 0) = (term_id IS NULL) AND (rank = 0) = (reason IS NOT NULL)",
        "probability_range": "probability IS NULL OR probability BETWEEN 0 AND 1",
    },
)

LEVELS = 6

ITEM_CATEGORIES = Table(
    "item_categories",
    "Category path of every item.",
    (
        DS,
        Column("item_id", "string", "Which item."),
        Column("category_id", "string", "Deepest node of the path.", nullable=True),
        Column("path_ids", "array<string>", "Node ids from the root down."),
        Column("path", "array<string>", "Node names from the root down."),
        *(Column(f"level_{n}", "string", f"Name at depth {n}.", nullable=True) for n in range(1, LEVELS + 1)),
        Column("probabilities", "array<double>", "Probability of the path down to each level."),
        Column("probability", "double", "Probability of the whole path.", nullable=True),
        Column("stopped", "string", "leaf, or why the path ends at an inner node or nowhere."),
        *LINEAGE,
    ),
    keys=("ds", "item_id"),
    partition_by=("ds",),
    checks={"same_length": "size(path) = size(path_ids) AND size(path) = size(probabilities)"},
    properties={"delta.logRetentionDuration": LOG_RETENTION},
)

LABELS_CURRENT = Table(
    "labels_current",
    "What is live: one row for every item of the newest published day.",
    (
        Column("item_id", "string", "Which item."),
        Column("ds", "date", "Day whose run last changed this row."),
        Column("title", "string", "Its title then, e-mail addresses and telephone numbers masked.", nullable=True),
        Column(
            "text_hash",
            "string",
            "Of the normalised product text that was labelled, as in item_embeddings; null in older rows.",
            nullable=True,
        ),
        Column("term", "string", "Best term.", nullable=True),
        Column("term_probability", "double", "Its calibrated probability.", nullable=True),
        Column(
            "terms",
            "array<struct<term_id: string, term: string, score: double, probability: double>>",
            "All terms, best first.",
        ),
        Column("term_source", "string", "model or override."),
        Column("term_reason", "string", "Why there is no term, see item_terms.", nullable=True),
        Column("category_id", "string", "Deepest node of the category path.", nullable=True),
        Column("category_path", "string", "Names from the root down, joined by ' > '.", nullable=True),
        Column("category_probability", "double", "Probability of the whole path.", nullable=True),
        Column("category_source", "string", "model or override."),
        Column("category_reason", "string", "Why the path stops before a leaf.", nullable=True),
        *LINEAGE,
    ),
    keys=("item_id",),
    properties={
        "delta.enableChangeDataFeed": "true",
        # Its commits say what was live when, and a rollback reads the rows of one of them.
        "delta.logRetentionDuration": LOG_RETENTION,
        "delta.deletedFileRetentionDuration": f"interval {FILE_RETENTION_DAYS} days",
    },
)
