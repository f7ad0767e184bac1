"""What is on record of the labels: what changed them, samples to judge, checks, runs."""

from __future__ import annotations

from etl.contracts.table import DS, LINEAGE, LOG_RETENTION, Column, Table

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
        DS,
        Column("item_id", "string", "Which item."),
        Column("stratum", "string", "Band of the term's probability, and the category's first level."),
        Column("stratum_items", "bigint", "Items of the day in that stratum."),
        Column("inclusion", "double", "Probability with which each of them was drawn: one stands for 1 / inclusion items."),
        Column("title", "string", "Its title, e-mail addresses and telephone numbers masked.", nullable=True),
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
        DS,
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
        DS,
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
    # A stage that runs again replaces its row; what made a day as it was is then told by an earlier commit.
    properties={"delta.logRetentionDuration": LOG_RETENTION},
)
