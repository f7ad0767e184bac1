"""Every table's columns, types, keys and meaning, once, as plain data.

Spark schemas, Delta tables with their comments and constraints, input checks and the data dictionary
are all derived from here (:mod:`etl.tables`, :mod:`etl.inputs`). Nothing is imported from pyspark.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Spark SQL type and what it means.

    ``accepts`` lists further types that an input table may bring; they are cast without loss.
    """

    name: str
    type: str
    comment: str
    nullable: bool = False
    optional: bool = False
    accepts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One table: rows are unique in ``keys``; ``checks`` are SQL conditions that every row meets.

    Each stands here once, so a table equals itself only, and may be the key of a dict.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    checks: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def ddl(self) -> str:
        """Columns as a Spark DDL string."""
        return ", ".join(f"{c.name} {c.type}{'' if c.nullable else ' NOT NULL'}" for c in self.columns)


_ID_TYPES = ("bigint", "int")
_DAY_TYPES = ("string",)

# ---------------------------------------------------------------- inputs

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

# ---------------------------------------------------------------- outputs of etl

_DS = Column("ds", "date", "Day that the row was made for.")

SPLITS = ("train", "valid", "test", "item", "time", "unused")

PAIRS = Table(
    "pairs",
    "Cleaned query-item pairs over the window of days that ends with ds.",
    (
        _DS,
        Column("query_id", "bigint", "xxhash64 of the normalised query."),
        Column(
            "query",
            "string",
            "The query, normalised only, since a raw spelling may be one person's; asked by at least k distinct users.",
        ),
        Column("query_group", "bigint", "Queries that differ in word order or a plural s only share it."),
        Column("item_id", "string", "The item that was clicked."),
        Column("title_id", "bigint", "xxhash64 of the item's normalised text: equal texts are one product."),
        Column("item_group", "bigint", "Items with nearly equal texts share it, see title_groups."),
        Column("title", "string", "The item's title at ds, raw.", nullable=True),
        Column("clicks", "bigint", "Clicks, carts and orders kept, each counted once a session."),
        Column("users", "bigint", "Distinct users among them."),
        Column(
            "weight",
            "double",
            "Strength: sum over sessions of the strongest event's weight, over its position's propensity.",
        ),
        Column("first_day", "date", "Day (UTC) of the first of these clicks."),
        Column("split", "string", "train; held out: valid, test, item, time; or unused, see etl/splits.py."),
        Column("sampled", "boolean", "Whether training draws it: hot queries and items are thinned."),
        Column("query_logp", "double", "ln of the query's share of the sampled pairs; null if none is.", nullable=True),
        Column("item_logp", "double", "ln of the title's share of the sampled pairs; null if none is.", nullable=True),
    ),
    keys=("ds", "query_id", "item_id"),
    partition_by=("ds",),
    checks={
        "split_known": f"split IN ({', '.join(map(repr, SPLITS))})",
        "clicks_positive": "clicks >= 1 AND users >= 1",
        "only_train_is_sampled": "split = 'train' OR NOT sampled",
    },
)

TITLE_GROUPS = Table(
    "title_groups",
    "Texts of the catalogue that nearly equal another, or are held out; every other is trained on, a group of its own.",
    (
        _DS,
        Column("title_id", "bigint", "xxhash64 of the normalised text."),
        Column("item_group", "bigint", "Smallest title_id among those that are nearly equal."),
        Column("heldout", "boolean", "Whether a text of the group is held out: no training sees any of them."),
    ),
    keys=("ds", "title_id"),
    partition_by=("ds",),
)

ETL_COUNTS = Table(
    "etl_counts",
    "What each cleaning rule dropped, by the day in which events arrived; rows_in = rows_dropped + rows_kept.",
    (
        _DS,
        Column("event_day", "date", "Day (UTC) of the click_log partition that the events arrived in."),
        Column("step", "int", "Order in which the rules apply, from 1."),
        Column("rule", "string", "Name of the rule."),
        Column("rows_in", "bigint", "Events before the rule."),
        Column("rows_dropped", "bigint", "Events that it dropped."),
        Column("rows_kept", "bigint", "Events after it."),
    ),
    keys=("ds", "event_day", "step"),
    partition_by=("ds",),
    checks={"reconciles": "rows_in = rows_dropped + rows_kept"},
)

# ---------------------------------------------------------------- outputs of labeling

LINEAGE = (
    Column("run_id", "string", "Run that made the row: ds and a hash of all that it depends on."),
    Column("bundle", "string", "Encoder that made it."),
    Column("calibration", "string", "Calibration that turned scores into probabilities."),
    Column("vocabulary", "string", "Version (hash) of the vocabulary; empty if the warehouse has none."),
    Column("taxonomy", "string", "Version (hash) of the taxonomy; empty if the warehouse has none."),
    Column("code", "string", "Version of this package, with a hash of its source."),
    Column("settings", "string", "Cuts that chose the labels, [predict] as JSON; null in older rows.", nullable=True),
    Column("inputs", "string", "What was read of the input tables, as JSON: a hash of the rows, by table."),
)

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

ITEM_TERMS = Table(
    "item_terms",
    "Product terms of every item; an item without any has one row of rank 0 with the reason.",
    (
        _DS,
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
        _DS,
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
)

LABELS_CURRENT = Table(
    "labels_current",
    "What is live: one row for every item of the newest published day.",
    (
        Column("item_id", "string", "Which item."),
        Column("ds", "date", "Day whose run last changed this row."),
        Column("title", "string", "Its title then, raw.", nullable=True),
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
        "delta.logRetentionDuration": "interval 365 days",
        "delta.deletedFileRetentionDuration": "interval 30 days",
    },
)

CHANGED = ("new", "gone", "term", "terms", "category", "term_confidence", "category_confidence")
"""What of an item changed: the item itself, its best term, its further terms, its category path, or with the same label
its source, its reason, score or probability."""

CAUSES = (
    "new_item",
    "gone_item",
    "override",
    "title",
    "model",
    "vocabulary",
    "taxonomy",
    "examples",
    "threshold",
    "clicks",
    "code",
    "rollback",
    "unknown",
)
"""Why it changed; docs/publishing.md says which of several counts."""

LABEL_CHANGES = Table(
    "label_changes",
    "What each commit to labels_current changed of the labels, and why; at most one row for an item's terms, and one for "
    "its category.",
    (
        Column("ds", "date", "Newest day that was live by then: of a publishing its own, of a rollback that taken back."),
        Column("live_version", "bigint", "Version of labels_current that the commit made."),
        Column("item_id", "string", "Which item."),
        Column("what", "string", f"{', '.join(CHANGED)}: what changed."),
        Column(
            "old", "string", "Label before: best term, terms joined by ' | ', category path or probability.", nullable=True
        ),
        Column("new", "string", "The same after it; null where there is none.", nullable=True),
        Column("cause", "string", "Why: the first of differs, but for a rollback."),
        Column("differs", "array<string>", "All that differs from what was live before and bears on this label, by rank."),
        *LINEAGE,
    ),
    keys=("live_version", "item_id", "what"),
    partition_by=("ds",),
    checks={
        "what_known": f"what IN ({', '.join(map(repr, CHANGED))})",
        "cause_known": f"cause IN ({', '.join(map(repr, CAUSES))})",
    },
)

ANNOTATION_SAMPLE = Table(
    "annotation_sample",
    "A random sample of a day's labels by the model, stratified, for people to judge: what they say of it holds for all.",
    (
        _DS,
        Column("item_id", "string", "Which item."),
        Column("stratum", "string", "Band of the term's probability, and the category's first level."),
        Column("stratum_items", "bigint", "Items of the day in that stratum."),
        Column("inclusion", "double", "Probability with which each of them was drawn: one stands for 1 / inclusion items."),
        Column("title", "string", "Its title, raw.", nullable=True),
        Column("term_id", "string", "Its best term; null where the model abstained.", nullable=True),
        Column("term", "string", "Its canonical form.", nullable=True),
        Column("term_probability", "double", "Its calibrated probability.", nullable=True),
        Column("category_id", "string", "Deepest node of its path.", nullable=True),
        Column("category_path", "string", "Names from the root down, joined by ' > '.", nullable=True),
        Column("category_probability", "double", "Probability of the whole path.", nullable=True),
        *LINEAGE,
    ),
    keys=("ds", "item_id"),
    partition_by=("ds",),
    checks={"inclusion_range": "inclusion > 0 AND inclusion <= 1"},
)

QUALITY = Table(
    "quality",
    "Results of the checks that stand between a run and the live labels, and what people found who judged a sample.",
    (
        _DS,
        Column("run_id", "string", "Run that was checked; with .review behind it where people judged it."),
        Column("check", "string", "Name of the check."),
        Column("hard", "boolean", "Whether its failure stops the publishing."),
        Column("value", "double", "What was measured.", nullable=True),
        Column("expected", "string", "What it should be, with the reason."),
        Column("passed", "boolean", "Whether it is."),
    ),
    keys=("ds", "run_id", "check"),
    partition_by=("ds",),
)

RUNS = Table(
    "runs",
    "What each stage of a run read, wrote and took; the newest attempt of a stage replaces earlier ones.",
    (
        _DS,
        Column("stage", "string", "Stage, such as pairs, train, predict, publish, maintain: the name of its command."),
        Column("run_id", "string", "Run, where the stage belongs to one.", nullable=True),
        Column("bundle", "string", "Encoder used or made.", nullable=True),
        Column("code", "string", "Version of this package with a hash of its source, and the git revision where known."),
        Column("inputs", "string", "Versions of what was read, as JSON."),
        Column("counts", "string", "Rows read, written, reused, and days whose pairs lack late events, as JSON."),
        Column("seconds", "double", "Wall time of the stage."),
        Column("finished_at", "timestamp", "When it ended (UTC)."),
        Column(
            "settings",
            "string",
            "Settings of the stage that its rows depend on, as JSON; null for a stage without any.",
            nullable=True,
        ),
    ),
    keys=("ds", "stage"),
    partition_by=("ds",),
)

# ---------------------------------------------------------------- what else the vectors give

SIMILAR_ITEMS = Table(
    "similar_items",
    "Nearest items of every item by cosine of their texts; those of equal text are left out.",
    (
        _DS,
        Column("item_id", "string", "Which item."),
        Column("rank", "int", "1 for the nearest; ties stand by similar_item_id."),
        Column("similar_item_id", "string", "The item that is near to it."),
        Column("score", "double", "Cosine of the two texts' vectors."),
        *LINEAGE,
    ),
    keys=("ds", "item_id", "rank"),
    partition_by=("ds",),
    checks={"another_item": "item_id <> similar_item_id", "ranks_from_one": "rank >= 1"},
)

QUERY_ITEMS = Table(
    "query_items",
    "Recall list of the most clicked queries: their nearest items by cosine, for a ranker to order.",
    (
        _DS,
        Column("query_id", "bigint", "xxhash64 of the normalised query, as in pairs."),
        Column("query", "string", "The query, normalised; asked by at least k distinct users."),
        Column("rank", "int", "1 for the nearest; ties stand by item_id."),
        Column("item_id", "string", "The item."),
        Column("score", "double", "Cosine of query and item."),
        Column("clicks", "bigint", "Clicks on the item for this query in pairs; 0 if it was not clicked for it."),
        *LINEAGE,
    ),
    keys=("ds", "query_id", "rank"),
    partition_by=("ds",),
    checks={"ranks_from_one": "rank >= 1", "clicks_not_negative": "clicks >= 0"},
)

COPY_KEYWORDS = Table(
    "copy_keywords",
    "What an item's title does not say, for copywriters; an item whose title says all of it has no row.",
    (
        _DS,
        Column("item_id", "string", "Which item."),
        Column("title", "string", "Its title, raw.", nullable=True),
        Column("terms", "array<string>", "Its live terms, best first; a person's where there are some."),
        Column("missing_terms", "array<string>", "Those of them of which the title contains neither term nor synonym."),
        Column(
            "phrases",
            "array<struct<query: string, clicks: bigint, users: bigint, weight: double>>",
            "Queries that led to clicks on it and that the title does not contain, strongest first.",
        ),
        *LINEAGE,
    ),
    keys=("ds", "item_id"),
    partition_by=("ds",),
    checks={"something_is_missing": "size(missing_terms) > 0 OR size(phrases) > 0"},
)

CATEGORY_MISMATCH = Table(
    "category_mismatch",
    "Items whose seller chose another branch of the tree than the model, which is sure of its own.",
    (
        _DS,
        Column("item_id", "string", "Which item."),
        Column("title", "string", "Its title, raw.", nullable=True),
        Column("seller_category", "string", "What the seller chose, as the catalogue says it."),
        Column("seller_category_id", "string", "The node that this is."),
        Column("seller_path", "string", "Names from the root down to it, joined by ' > '."),
        Column("category_id", "string", "Deepest node of the model's path."),
        Column("category_path", "string", "Names from the root down to it, joined by ' > '."),
        Column("level", "int", "First level on which the two paths differ, 1 for the root."),
        Column("probability", "double", "Probability of the model's path down to that level."),
        Column("calibrated", "boolean", "Whether that is a frequency; else it ranks only."),
        *LINEAGE,
    ),
    keys=("ds", "item_id"),
    partition_by=("ds",),
    checks={"probability_range": "probability BETWEEN 0 AND 1", "level_from_one": "level >= 1"},
)

PROPOSALS = ("new", "synonym", "narrower")

TERM_CANDIDATES = Table(
    "term_candidates",
    "Queries that behave like product terms and are not in the vocabulary, for its curators.",
    (
        _DS,
        Column("query_group", "bigint", "Queries that differ in word order or a plural s only share it, as in pairs."),
        Column("query", "string", "The most clicked of these, normalised; asked by at least k distinct users."),
        Column("proposal", "string", "new, a synonym of the nearest term, or narrower: that term with further words."),
        Column("clicks", "bigint", "Clicks that the queries of the group led to."),
        Column("users", "bigint", "Distinct users, summed over items: one who clicked two of them counts twice."),
        Column("items", "bigint", "Distinct items clicked."),
        Column("cohesion", "double", "Mean cosine between two different clicked items, drawn by their clicks."),
        Column("nearest_term_id", "string", "Term of the vocabulary whose best form is nearest to the query."),
        Column("nearest_term", "string", "Its canonical form."),
        Column("cosine", "double", "Cosine of the query and that form."),
        Column("term_share", "double", "Share of its clicks on items whose best live term is the nearest term."),
        Column("example_items", "array<string>", "Its most clicked items."),
        *LINEAGE,
    ),
    keys=("ds", "query_group"),
    partition_by=("ds",),
    checks={"proposal_known": f"proposal IN ({', '.join(map(repr, PROPOSALS))})"},
)

INPUTS = (CLICK_LOG, CATALOGUE, VOCABULARY, TAXONOMY, OVERRIDES)
RELATED = (SIMILAR_ITEMS, QUERY_ITEMS, COPY_KEYWORDS, CATEGORY_MISMATCH, TERM_CANDIDATES)
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
