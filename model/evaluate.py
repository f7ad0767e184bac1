"""Recall and MRR of held-out queries against every title of a dataset, by exact search."""

# Q queries, N titles

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from etl.dataset import Manifest, decode_ids, load_token_table
from model.encoder import Encoder
from model.inference import embed
from model.progress import advancing
from model.retrieval import top_k

log = logging.getLogger(__name__)

CUTOFFS = (10, 100)


def evaluate(
    encoder: Encoder, dataset: Path, manifest: Manifest, device: str = "cpu", what: str = "evaluation"
) -> dict[str, dict[str, float]]:
    """Figures per split of a verified dataset: ``queries``, ``recall@10``, ``recall@100``, ``mrr@10``.

    Splits without queries are left out. What is searched is every distinct title, those that no crop shows among them.

    Args:
        encoder: To evaluate; on ``device`` afterwards.
        dataset: Directory of it.
        manifest: Of the dataset.
        device: See :func:`model.inference.embed`.
        what: Heading of its progress.
    """
    table = load_token_table(dataset) if manifest.hashed else None
    parts = (_read(dataset, manifest, part).select(["title_id", "title"]) for part in ("titles", "corpus"))
    titles = pa.concat_tables(parts).sort_by("title_id")
    title_ids = titles["title_id"].to_numpy()
    heldout = _read(dataset, manifest, "heldout").sort_by([("split", "descending"), ("query_id", "ascending")])
    log.info("%s: evaluating %d held-out queries against %d titles", what, len(heldout), len(titles))
    texts = _ids(titles["title"], manifest)
    with advancing(what, sum(map(len, texts)), "token") as advance:
        corpus = embed(encoder, texts, table, device, advance)
    figures = {}
    for split in heldout["split"].unique().to_pylist():
        rows = heldout.filter(pa.compute.equal(heldout["split"], split))
        queries = embed(encoder, _ids(rows["query"], manifest), table, device)
        _, found = top_k(queries, corpus, max(CUTOFFS))
        figures[split] = metrics(title_ids[found], [np.array(gold) for gold in rows["title_ids"].to_pylist()])
    return figures


def metrics(found: np.ndarray, gold: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean over queries of recall@k (hits / relevant items) and MRR@10.

    Args:
        found: [Q, >= 100] ids, best first.
        gold: Ids of the relevant items of each query.
    """
    hits = np.stack([np.isin(row, relevant) for row, relevant in zip(found, gold, strict=True)])
    counts = np.array([max(len(relevant), 1) for relevant in gold])
    first = np.where(hits[:, :10].any(axis=1), 1.0 / (hits[:, :10].argmax(axis=1) + 1), 0.0)
    recall: dict[str, Any] = {f"recall@{k}": round(float((hits[:, :k].sum(axis=1) / counts).mean()), 6) for k in CUTOFFS}
    return {"queries": len(gold), **recall, "mrr@10": round(float(first.mean()), 6)}


def _read(dataset: Path, manifest: Manifest, part: Any) -> pa.Table:
    return pa.concat_tables(pq.read_table(dataset / file.path) for file in manifest.files(part))


def _ids(column: pa.ChunkedArray, manifest: Manifest) -> list[np.ndarray]:
    return [decode_ids(value, manifest.token_dtype) for value in column.to_pylist()]
