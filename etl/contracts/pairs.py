"""What the clicks said: pairs of query and item, texts that are nearly equal, and what each rule dropped."""

from __future__ import annotations

from etl.contracts.table import DS, Column, Table

SPLITS = ("train", "valid", "test", "item", "time", "unused")

PAIRS = Table(
    "pairs",
    "Cleaned query-item pairs over the window of days that ends with ds.",
    (
        DS,
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
        Column("title", "string", "The item's title at ds, e-mail addresses and telephone numbers masked.", nullable=True),
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
        DS,
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
        DS,
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
