"""Sessions out of the acts of a user, and what a session may count once: misclicks and repeats are marked."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from etl.cleaning import ACTIONS, Transform, first_of
from etl.pairs_config import PairsConfig


def with_visits(gap_minutes: int) -> Transform:
    """Acts -> the same with ``visit``, ``return_ms``, and the hashes ``user`` and ``session`` in place of the ids.

    A visit is what a user does in one session of the log (or in none, where it has none) without a pause of ``gap_minutes``.
    ``return_ms`` is the time until the visit's next act if that is on another item, else null.
    """

    def transform(acts: DataFrame) -> DataFrame:
        hashed = acts.withColumns({"user": F.xxhash64("user_id"), "session": F.xxhash64("session_id")})
        hashed = hashed.withColumn("_ms", F.unix_millis("event_time")).drop("user_id", "session_id")
        # The rest of the order only makes ties repeatable.
        order = ("_ms", "query_id", "item_id", "event", "ds")
        time = Window.partitionBy("user", "session", F.col("rule").isNull()).orderBy(*order)
        gap = F.lit(gap_minutes * 60_000)
        pause = F.coalesce(F.col("_ms") - F.lag("_ms").over(time) > gap, F.lit(False))
        ahead = F.lead("_ms").over(time) - F.col("_ms")
        elsewhere = (ahead <= gap) & (F.lead("item_id").over(time) != F.col("item_id"))
        marked = hashed.withColumns({"_pause": pause.cast("int"), "return_ms": F.when(elsewhere, ahead)})
        return marked.withColumn("visit", F.sum("_pause").over(time)).drop("_pause")

    return transform


def with_session_rules(config: PairsConfig) -> Transform:
    """Adds ``weight`` and marks misclicks and repeats within (user, session, visit, query, item)."""

    def transform(acts: DataFrame) -> DataFrame:
        strength = F.array_position(F.array(*map(F.lit, ACTIONS)), F.col("event"))
        click, dwell = F.col("event") == "click", F.col("dwell_ms")
        quick = first_of(
            ("short_dwell", click & (dwell < config.min_dwell_ms)),
            ("fast_return", click & dwell.isNull() & (F.col("return_ms") < config.min_return_ms)),
        )
        columns = acts.withColumns({"_strength": strength, "_quick": quick, "weight": _weight(config.weights)})
        # Strongest first: where it is a click, nothing followed, and one sort serves both rules.
        same = Window.partitionBy("user", "session", F.col("rule").isNull(), "visit", "query_id", "item_id")
        same = same.orderBy(F.desc("_strength"), F.col("_quick").isNotNull(), "_ms", "ds", "position")
        strongest, rank = F.first("_strength").over(same), F.row_number().over(same)
        misclick = F.when(strongest == 1, F.col("_quick"))
        rule = F.coalesce("rule", misclick, first_of(("repeat_in_session", rank > 1)))
        return columns.withColumn("rule", rule).drop("_strength", "_quick", "_ms", "return_ms", "visit")

    return transform


def _weight(weights: Mapping[str, int]) -> Column:
    pairs = [F.lit(value) for action in ACTIONS for value in (action, weights[action])]
    return F.element_at(F.create_map(*pairs), F.col("event"))
