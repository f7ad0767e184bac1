"""Checks of a day's staged labels by themselves: complete, unique, of known terms and paths, not silent, not all alike."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from etl.contracts import Table
from etl.taxonomy import Taxonomy
from etl.vocabulary import Vocabulary
from labeling.check import Check

_MIN_TERMS_FOR_TOP_SHARE = 20


def common_checks(rows: DataFrame, items: DataFrame, table: Table) -> list[Check]:
    """What holds for either table: each item of the catalogue has its outcome, and keys are unique."""
    by_item = rows.groupBy("item_id").agg(
        F.count(F.lit(1)).alias("rows"), F.countDistinct(*(F.col(key) for key in table.keys)).alias("keys")
    )
    both = items.withColumn("listed", F.lit(True)).join(by_item, on="item_id", how="full")
    lacking, unknown, doubled = _counts(both, "rows IS NULL", "listed IS NULL", "rows > keys")
    name = table.name
    return [
        _none(f"{name}.items_without_outcome", lacking, "items of the catalogue without a row"),
        _none(f"{name}.items_not_in_catalogue", unknown, "items with a row that are not in the catalogue of the day"),
        _none(f"{name}.keys_not_unique", doubled, f"items with rows that share {', '.join(table.keys)}"),
    ]


def term_checks(rows: DataFrame, vocabulary: Vocabulary, *, max_abstention: float, max_top_share: float) -> list[Check]:
    """ITEM_TERMS -> checks of ranks, terms, abstention and collapse."""
    terms = [(term.term_id, True) for term in vocabulary.terms]
    known = rows.sparkSession.createDataFrame(terms, "term_id string, known boolean")
    matched = rows.join(F.broadcast(known), on="term_id", how="left")
    unknown, silent, given = _counts(matched, "rank > 0 AND known IS NULL", "rank = 0", "rank = 1")
    by_item = rows.groupBy("item_id").agg(
        F.sort_array(F.collect_list("rank")).alias("ranks"), F.size(F.collect_set("term_id")).alias("terms")
    )
    straight = "(ranks = array(0)) OR (ranks = sequence(1, size(ranks)) AND terms = size(ranks))"
    (crooked,) = _counts(by_item, f"NOT ({straight})")
    top = rows.where("rank = 1").groupBy("term_id").count().agg(F.max("count")).collect()[0][0] or 0
    checks = [
        _none("item_terms.unknown_terms", unknown, "rows whose term_id is not in the vocabulary"),
        _none("item_terms.ranks", crooked, "items whose ranks are not 1..n of distinct terms, or a single 0"),
        _at_most("item_terms.abstention", _share(silent, silent + given), max_abstention, "share of items without a term"),
    ]
    if len(vocabulary.terms) >= _MIN_TERMS_FOR_TOP_SHARE:
        share = _share(top, given)
        checks.append(_at_most("item_terms.top_share", share, max_top_share, "share of the most frequent best term"))
    return checks


def category_checks(rows: DataFrame, taxonomy: Taxonomy, *, max_abstention: float) -> list[Check]:
    """ITEM_CATEGORIES -> checks against the tree: each path is one of its paths, by ids and names, from a root down."""
    paths = [(id_, [n.id for n in taxonomy.path(id_)], [n.name for n in taxonomy.path(id_)], True) for id_ in taxonomy.nodes]
    columns = ["category_id", "path_ids", "path"]
    tree = rows.sparkSession.createDataFrame(
        paths, "category_id string, path_ids array<string>, path array<string>, known boolean"
    )
    matched = rows.join(F.broadcast(tree), on=columns, how="left")
    torn, rising, silent, items = _counts(
        matched,
        "IF(category_id IS NULL, size(path_ids) > 0 OR probability IS NOT NULL, known IS NULL)",
        "NOT (probabilities <=> reverse(array_sort(probabilities))) "
        "OR NOT (probability <=> get(probabilities, size(probabilities) - 1))",
        "category_id IS NULL",
        "true",
    )
    share = _share(silent, items)
    return [
        _none("item_categories.paths_not_in_tree", torn, "rows whose path is not the tree's path to their category_id"),
        _none("item_categories.rising_probability", rising, "rows whose path gets more probable further down"),
        _at_most("item_categories.abstention", share, max_abstention, "share of items without a category"),
    ]


def _counts(rows: DataFrame, *conditions: str) -> list[int]:
    """Rows that meet each condition, by one pass."""
    return list(rows.select(*(F.count_if(F.expr(condition)) for condition in conditions)).collect()[0])


def _none(name: str, found: int, what: str) -> Check:
    return Check(name, float(found), f"0 {what}", passed=found == 0)


def _at_most(name: str, found: float, limit: float, what: str) -> Check:
    return Check(name, round(found, 6), f"at most {limit:g}: {what}", passed=found <= limit)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
