"""What else the vectors give: nearest items, recall lists, words for copy, contradictions, words to add."""

from __future__ import annotations

from etl.contracts.table import DS, LINEAGE, Column, Table

SIMILAR_ITEMS = Table(
    "similar_items",
    "Nearest items of every item by cosine of their texts; those of equal text are left out.",
    (
        DS,
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
        DS,
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
        DS,
        Column("item_id", "string", "Which item."),
        Column("title", "string", "Its title, e-mail addresses and telephone numbers masked.", nullable=True),
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
        DS,
        Column("item_id", "string", "Which item."),
        Column("title", "string", "Its title, e-mail addresses and telephone numbers masked.", nullable=True),
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
        DS,
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

RELATED = (SIMILAR_ITEMS, QUERY_ITEMS, COPY_KEYWORDS, CATEGORY_MISMATCH, TERM_CANDIDATES)
