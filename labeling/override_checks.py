"""How often the model says what people have said: overrides as a measure of it, not only as labels."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from etl.contracts import ITEM_TERMS, Table
from labeling.check import Check


def agreement(rows: DataFrame, overrides: DataFrame | None, table: Table) -> Check:
    """Share of overridden items of which the model says the same: its best term is one of theirs, its category is theirs.

    Told and not judged: people correct what is wrong, so it lies below the share of all items (that is what
    ANNOTATION_SAMPLE is for), and its course over nights is what says something.

    Args:
        rows: Of ITEM_TERMS or ITEM_CATEGORIES, of one day.
        overrides: Rows of OVERRIDES_SCHEMA that hold on it; None if the warehouse has none.
        table: Whose rows they are.
    """
    name = f"{table.name}.agrees_with_overrides"
    if overrides is None:
        return Check(name, None, "told only: this warehouse has no overrides", passed=True, hard=False)
    if table is ITEM_TERMS:
        said = rows.where("rank <= 1").select("item_id", F.col("term_id").alias("said"))
        theirs, same = "override_terms", F.array_contains(F.col("override_terms.term_id"), F.col("said"))
    else:
        said = rows.select("item_id", F.col("category_id").alias("said"))
        theirs, same = "override_category", F.col("override_category.category_id") == F.col("said")
    both = said.join(overrides.where(F.col(theirs).isNotNull()), on="item_id", how="inner")
    items, agreed = both.agg(F.count(F.lit(1)), F.count_if(F.coalesce(same, F.lit(False)))).collect()[0]
    expected = f"told only: share of {items} overridden items of which the model says what the people said"
    return Check(name, round(agreed / items, 6) if items else None, expected, passed=True, hard=False)
