"""Recall, MRR and nDCG of ranked lists, query by query, and how sure their means are.

As trec_eval has them (recall_k, recip_rank, ndcg_cut_k), with relevance 0 or 1.
"""

# Q queries, K ranks, M measures

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

DEPTH = 100
"""Ranks that the measures look at."""

MEASURES = ("recall@10", "recall@100", "mrr@10", "ndcg@10")

DRAWS = 1_000
"""Of a bootstrap, and of random rankings."""

CONFIDENCE = 0.95
_SEED = 0
_BATCH = 2**21  # numbers of a batch of draws that are held at once: 16 MiB


class Interval(NamedTuple):
    """A mean over queries, and its bootstrap interval; of fewer than two queries nothing says how sure it is."""

    mean: float
    low: float | None
    high: float | None


def hits_of(found: np.ndarray, gold: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Which of the ``found`` ids [Q, K], best first, are relevant [Q, K], and how many relevant ones there are [Q].

    Args:
        found: Ids of each query, distinct.
        gold: Ids that are relevant to each query, distinct.

    Raises:
        ValueError: a query has no relevant id: its recall is not defined.
    """
    relevant = np.array([len(ids) for ids in gold], dtype=np.int64)
    if len(relevant) and not relevant.all():
        raise ValueError(f"{(relevant == 0).sum()} of {len(gold)} queries have no relevant id: leave them out")
    hits = [np.isin(row, ids) for row, ids in zip(found, gold, strict=True)]
    return np.array(hits, dtype=bool).reshape(len(gold), found.shape[1]), relevant


def measure(hits: np.ndarray, relevant: np.ndarray) -> dict[str, np.ndarray]:
    """MEASURES of each query [Q], from what :func:`hits_of` returns; K is DEPTH, or all there is."""
    values = (recall(hits, relevant, 10), recall(hits, relevant, 100), reciprocal_rank(hits, 10), ndcg(hits, relevant, 10))
    return dict(zip(MEASURES, values, strict=True))


def recall(hits: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """[Q] share of a query's relevant ids that stand among the first ``k``."""
    return hits[:, :k].sum(axis=1) / relevant


def reciprocal_rank(hits: np.ndarray, k: int) -> np.ndarray:
    """[Q] 1 / rank of the first relevant id among the first ``k``; 0 without one."""
    return (hits[:, :k] / np.arange(1, hits[:, :k].shape[1] + 1)).max(axis=1, initial=0.0)


def ndcg(hits: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """[Q] discounted gain of the first ``k``, over that of the best order (Järvelin and Kekäläinen 2002), gains 0 or 1."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gained = hits[:, :k] @ discounts[: hits[:, :k].shape[1]]
    return gained / np.cumsum(discounts)[np.minimum(relevant, k) - 1]


def recall_at_random(among: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Recall@k, mean over the queries, of DRAWS rankings that are nothing but chance [DRAWS]; the seed is fixed.

    Args:
        among: [Q] how many ids each query is searched for among.
        relevant: [Q] how many of them are relevant to it, one at least.
        k: Ranks that are looked at.
    """
    rng = np.random.default_rng(_SEED)
    found = sum(rng.hypergeometric(r, n - r, min(k, n), DRAWS) / r for n, r in zip(among, relevant, strict=True))
    return np.asarray(found) / len(relevant)


def intervals(values: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """Mean of each [Q], and its 95% interval by the percentile bootstrap: 1,000 draws of Q queries with replacement.

    Every measure is drawn with the same queries, and the seed is fixed. Of the differences between two systems' values on
    the same queries this is the paired bootstrap (Sakai 2006).
    """
    if not values:
        return {}
    table_MQ = np.stack(list(values.values())).astype(np.float64)
    means = [round(float(mean), 6) for mean in table_MQ.mean(axis=1)]
    if table_MQ.shape[1] < 2:
        return {name: Interval(mean, None, None) for name, mean in zip(values, means, strict=True)}
    drawn = bootstrap(
        (table_MQ,),
        np.mean,
        axis=-1,
        n_resamples=DRAWS,
        batch=max(_BATCH // table_MQ.size, 1),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    bounds = zip(drawn.low.round(6).tolist(), drawn.high.round(6).tolist(), strict=True)
    return {name: Interval(mean, *pair) for name, mean, pair in zip(values, means, bounds, strict=True)}
