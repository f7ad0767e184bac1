"""How a bundle answers the held-out queries of a dataset, by exact search among all its titles."""

# Q queries, N titles, K ranks

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.dataset import Manifest, decode_ids, load_token_table
from etl.errors import InputError
from model.encoder import Encoder
from model.inference import embed
from model.metrics import DEPTH, Interval, hits_of, intervals, measure, recall
from model.progress import advancing
from model.retrieval import top_k

log = logging.getLogger(__name__)

TYPOS = "typos_recall@10"
"""Recall@10 of the queries as :func:`etl.typos.misspelt` has them."""

SLICES = ("language", "frequency")
_ORDER = {"head": 0, "torso": 1, "tail": 2}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Every held-out query and how it was answered: Q rows, the same for every bundle that is asked the same queries."""

    queries: Mapping[str, np.ndarray]
    """[Q] by name: split, query_id, language, frequency; the last one only of a dataset's."""
    values: Mapping[str, np.ndarray]
    """[Q] of each of :data:`model.metrics.MEASURES` and of TYPOS."""
    hits: np.ndarray
    """[Q, K] which of the first K titles are relevant."""
    relevant: np.ndarray
    """[Q] how many titles are relevant."""

    @property
    def splits(self) -> list[str]:
        """Those that have queries: valid, time, test, item."""
        return sorted(set(self.queries["split"].tolist()), reverse=True)

    def part(self, split: str, **of: str) -> Evaluation:
        """The queries of a split, and of a slice of it: ``part("test", language="latin")``."""
        chosen = np.logical_and.reduce([self.queries[name] == value for name, value in {"split": split, **of}.items()])
        queries, values = ({k: v[chosen] for k, v in columns.items()} for columns in (self.queries, self.values))
        return Evaluation(queries, values, self.hits[chosen], self.relevant[chosen])

    def figures(self) -> dict[str, dict[str, float]]:
        """By split: ``queries``, and the mean of each measure."""
        parts = {split: self.part(split) for split in self.splits}
        return {
            split: {"queries": len(part.relevant)} | {k: round(float(v.mean()), 6) for k, v in part.values.items()}
            for split, part in parts.items()
        }

    def slices(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By split and slice (``all``, ``language latin``, ...): ``queries``, and of each measure mean, low and high.

        ``typos_kept`` is the share of recall@10 that is left with typos; None where there was none to keep.
        """
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for split in self.splits:
            whole = self.part(split)
            found[split] = {"all": whole.summary()}
            for name in [name for name in SLICES if name in whole.queries]:
                for value in sorted(set(whole.queries[name].tolist()), key=lambda value: (_ORDER.get(value, 0), value)):
                    found[split][f"{name} {value}"] = whole.part(split, **{name: value}).summary()
        return found

    def less(self, other: Evaluation) -> dict[str, dict[str, Interval]]:
        """By split and measure: the mean of this bundle's values less another's on the same queries, by paired bootstrap."""
        assert all(np.array_equal(self.queries[name], other.queries[name]) for name in ("split", "query_id"))
        pairs = {split: (self.part(split).values, other.part(split).values) for split in self.splits}
        return {split: intervals({k: ours[k] - theirs[k] for k in ours}) for split, (ours, theirs) in pairs.items()}

    def summary(self) -> dict[str, Any]:
        """Of all its queries: ``queries``, the interval of each measure, and ``typos_kept``."""
        measured = intervals(self.values)
        plain = measured["recall@10"].mean
        kept = round(measured[TYPOS].mean / plain, 6) if plain else None
        return {"queries": len(self.relevant), **{k: list(v) for k, v in measured.items()}, "typos_kept": kept}


def evaluate(
    encoder: Encoder, dataset: Path, manifest: Manifest, device: str = "cpu", what: str = "evaluation"
) -> Evaluation:
    """The held-out queries of a verified dataset, asked as they are and with typos.

    What is searched is every distinct title, those that no crop shows among them.

    Args:
        encoder: To evaluate; on ``device`` afterwards.
        dataset: Directory of it.
        manifest: Of the dataset.
        device: See :func:`model.inference.embed`.
        what: Heading of its progress.

    Raises:
        InputError: as :func:`rank`.
    """
    table = load_token_table(dataset) if manifest.hashed else None
    parts = (_read(dataset, manifest, part).select(["title_id", "title"]) for part in ("titles", "corpus"))
    titles = pa.concat_tables(parts).sort_by("title_id")
    heldout = _read(dataset, manifest, "heldout").sort_by([("split", "descending"), ("query_id", "ascending")])
    log.info("%s: evaluating %d held-out queries against %d titles", what, len(heldout), len(titles))
    texts = _ids(titles["title"], manifest)
    with advancing(what, sum(map(len, texts)), "token") as advance:
        corpus = embed(encoder, texts, table, device, advance)
    asked = (embed(encoder, _ids(heldout[name], manifest), table, device) for name in ("query", "query_typos"))
    columns = ("split", "query_id", *SLICES)
    queries = {name: np.array(heldout[name].to_pylist()) for name in columns}
    gold, seen = (heldout[name].to_pylist() for name in ("title_ids", "seen_title_ids"))
    return rank(queries, gold, titles["title_id"].to_numpy(), corpus, *asked, seen=seen)


def searched(dataset: Path, manifest: Manifest, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each query of a split, how many titles :func:`evaluate` searches, and how many of them are right: both [Q]."""
    heldout = _read(dataset, manifest, "heldout")
    rows = heldout.filter(pc.equal(heldout["split"], split))
    seen, right = (pc.list_value_length(rows[name]).to_numpy() for name in ("seen_title_ids", "title_ids"))
    return manifest.rows("titles") + manifest.rows("corpus") - seen, right


def rank(
    queries: Mapping[str, np.ndarray],
    gold: Sequence[Sequence[int]],
    title_ids: np.ndarray,
    title_ND: np.ndarray,
    query_QD: np.ndarray,
    typos_QD: np.ndarray,
    *,
    seen: Sequence[Sequence[int]] = (),
) -> Evaluation:
    """Search for each query among all titles but those that training showed as its answers.

    These are no answers that were held out: left in, they would take the first ranks from those that were, the better a
    bundle has learnt them (the "filtered" ranking of Bordes et al. 2013, Translating Embeddings).

    Args:
        queries: [Q] columns of :attr:`Evaluation.queries`.
        gold: Ids of the titles that are relevant to each query.
        title_ids: [N].
        title_ND: Unit vectors of the titles.
        query_QD: Unit vectors of the queries.
        typos_QD: The same of the queries with typos.
        seen: Ids of the titles to leave out for each query, none of them relevant; empty: none of any query.

    Raises:
        InputError: vectors are not finite, of which a search makes ranks all the same.
    """
    for of, vectors in (("titles", title_ND), ("queries", query_QD), ("queries with typos", typos_QD)):
        if not np.isfinite(vectors.sum(dtype=np.float64)):
            odd = int((~np.isfinite(vectors)).any(axis=1).sum())
            raise InputError(
                f"{odd} of {len(vectors)} {of} have vectors that are not finite (expected unit vectors): the weights are "
                "damaged, or their training diverged: train again with a lower --lr, with --no-resume"
            )
    relevant_ids = [np.array(ids) for ids in gold]
    left_out = seen or [()] * len(gold)
    found = _nearest(np.concatenate((query_QD, typos_QD)), title_ids, title_ND, [*left_out, *left_out])
    hits, relevant = hits_of(found[: len(gold)], relevant_ids)
    with_typos, _ = hits_of(found[len(gold) :], relevant_ids)
    values = measure(hits, relevant) | {TYPOS: recall(with_typos, relevant, 10)}
    return Evaluation(queries, values, hits, relevant)


def _nearest(query_QD: np.ndarray, title_ids: np.ndarray, title_ND: np.ndarray, seen: Sequence[Sequence[int]]) -> np.ndarray:
    """[Q, K] ids of the titles nearest to each query; the seen ones behind all others, so beyond K where there are enough.

    Searched deeper by as many as were seen, which of most queries are few and of a head query thousands: those of about
    equally many are searched together, since the deepest search for all would take 12 bytes x its depth of each query.
    """
    found = np.empty((len(query_QD), min(DEPTH, len(title_ids))), dtype=np.int64)
    number = np.array([len(ids) for ids in seen], dtype=np.int64)
    doublings = np.frexp(number)[1]  # 0, 1, 2-3, 4-7, ... seen titles
    for level in np.unique(doublings):
        rows = np.flatnonzero(doublings == level)
        deep = title_ids[top_k(query_QD[rows], title_ND, DEPTH + int(number[rows].max()))[1]]
        for row, ids in zip(rows, deep, strict=True):
            found[row] = ids[np.argsort(np.isin(ids, seen[row]), kind="stable")][: found.shape[1]]
    return found


def _read(dataset: Path, manifest: Manifest, part: Any) -> pa.Table:
    return pa.concat_tables(pq.read_table(dataset / file.path) for file in manifest.files(part))


def _ids(column: pa.ChunkedArray, manifest: Manifest) -> list[np.ndarray]:
    return [decode_ids(value, manifest.token_dtype) for value in column.to_pylist()]
