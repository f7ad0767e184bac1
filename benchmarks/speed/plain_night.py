"""A night as a script of one afternoon, to set beside ours: DuckDB, sentence-transformers, faiss, delta-rs.

Clicks of the window become pairs that so many users made, a StaticEmbedding is trained on them, every title gets the nearest
term of the vocabulary, and one Delta table is written. What it has not: robots and duplicates, held-out queries, a gate,
probabilities, categories, history, further tables, a report, a second machine, anything to fall back on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import deltalake
import duckdb
import faiss
import numpy as np
import pyarrow as pa

from benchmarks.speed.pacing import race
from benchmarks.speed.peers_trainer import theirs
from benchmarks.speed.training_data import Pairs, wordpiece, write_for_others
from etl.text import normalise

BATCH, EPOCHS, DIM, LR, TAU = 512, 4, 256, 2e-2, 0.05
"""Those of the StaticEmbedding in benchmarks.speed.training."""

_PAIRS = """
SELECT lower(trim(c.query)) AS query, any_value(i.title) AS title, count(*) AS clicks
FROM window_log c
JOIN read_parquet($items) i USING (item_id)
WHERE c.event IN ('click', 'cart', 'order')
GROUP BY lower(trim(c.query)), item_id
"""
_SUPPORTED = """
SELECT lower(trim(query)) AS query FROM window_log GROUP BY ALL HAVING count(DISTINCT user_id) >= $users
"""
_WINDOW = """
CREATE TABLE window_log AS
SELECT event, user_id, item_id, query FROM read_parquet($clicks, hive_partitioning = true)
WHERE ds::DATE > $ds::DATE - $days::INTEGER AND ds::DATE <= $ds::DATE
"""


def night(root: Path, ds: str, out: Path, users: int, days: int) -> int:
    """Label the catalogue of a warehouse of Parquet files; returns the number of items.

    Args:
        root: Warehouse, as `labeller sample` lays it down.
        ds: Day of the catalogue, and the last of the window.
        out: Delta table to write.
        users: Of whom each query needs so many.
        days: Of the window.
    """
    with duckdb.connect() as con:
        catalogue = str(root / f"catalogue/ds={ds}/*.parquet")
        con.execute(_WINDOW, {"clicks": str(root / "click_log/*/*.parquet"), "ds": ds, "days": days})
        con.execute(f"CREATE TABLE supported AS {_SUPPORTED}", {"users": users})
        con.execute(f"CREATE TABLE pairs AS {_PAIRS}", {"items": catalogue})
        clicks = con.execute("SELECT query, title FROM pairs SEMI JOIN supported USING (query) ORDER BY ALL").fetchall()
        items = con.execute("SELECT item_id, title FROM read_parquet(?) ORDER BY item_id", [catalogue]).fetchall()
        vocabulary = str(root / "vocabulary/*.parquet")
        terms = con.execute("SELECT term_id, term FROM read_parquet(?) WHERE status = 'active'", [vocabulary]).fetchall()
    pairs = Pairs([(normalise(query), normalise(title)) for query, title in clicks if title], [])
    with TemporaryDirectory() as scratch:
        texts = {"query": [normalise(term) for _, term in terms], "title": [normalise(title or "") for _, title in items]}
        write_for_others(Path(scratch), pairs, wordpiece(pairs), texts)
        steps = len(pairs.clicks) // BATCH * EPOCHS
        common = {"steps": steps, "threads": 2, "batch": BATCH, "tau": TAU, "lr": LR, "model": "static", "dim": DIM}
        race({"StaticEmbedding": theirs(Path(scratch), **common)}, steps, 0)
        asked, shown = (np.load(Path(scratch) / f"static-{side}.npy") for side in ("query", "title"))
    index = faiss.IndexFlatIP(DIM)
    index.add(asked)
    scores, nearest = index.search(shown, 1)
    columns = {
        "item_id": [item for item, _ in items],
        "title": [title for _, title in items],
        "term_id": [terms[n][0] for n in nearest[:, 0]],
        "term": [terms[n][1] for n in nearest[:, 0]],
        "score": scores[:, 0],
    }
    deltalake.write_deltalake(str(out), pa.table(columns), mode="overwrite")
    return len(items)


def main(argv: Sequence[str] | None = None) -> int:
    prog = "python -m benchmarks.speed.plain_night"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True, help="warehouse, as `labeller sample` lays it down")
    parser.add_argument("--ds", required=True, help="day of the catalogue, YYYY-MM-DD")
    parser.add_argument("--out", type=Path, required=True, help="Delta table to write")
    parser.add_argument("--min-users", type=int, default=3, help="users that asked a query (default: %(default)s)")
    parser.add_argument("--window-days", type=int, default=7, help="of clicks (default: %(default)s)")
    args = parser.parse_args(argv)
    print(f"{night(args.root, args.ds, args.out, args.min_users, args.window_days):,} items labelled")
    return 0


if __name__ == "__main__":
    sys.exit(main())
