"""Small datasets in the layout of etl.dataset, without Spark: plain Parquet is what ``make_batch_reader`` reads."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from etl.dataset import DataFile, Manifest, encode_ids
from etl.text import cut_words, normalise
from etl.tokenizer import TokenizerSpec, WordHashTokenizer, WordPieceTokenizer, token_id, tokenizer_hash

DS = dt.date(2024, 5, 7)
THINGS = ("sneakers", "kettle", "dress", "lamp", "drill", "sofa", "连衣裙", "运动鞋")
COLOURS = ("black", "white", "red", "green", "blue", "grey", "红色", "白色")
BRANDS = ("zoom", "acme", "nord", "vega", "luma", "orbit")


@dataclass
class Shop:
    """Texts by id, clicks between them, and held-out queries."""

    queries: dict[int, str] = field(default_factory=dict)
    titles: dict[int, str] = field(default_factory=dict)
    clicks: list[tuple[int, int]] = field(default_factory=list)
    heldout: list[tuple[str, int, list[int]]] = field(default_factory=list)
    """(split, query id, item groups)."""


def small_shop(seed: int = 0, titles: int = 160, clicks: int = 900) -> Shop:
    """Things in colours by brands; a title in three lacks its thing, which only the clicks tell."""
    rng = np.random.default_rng(seed)
    shop = Shop()
    for n in range(titles):
        thing, colour, brand = n % len(THINGS), int(rng.integers(len(COLOURS))), (n % len(THINGS)) % len(BRANDS)
        words = [BRANDS[brand], str(int(rng.integers(10, 99))), COLOURS[colour]] + ([] if n % 3 == 0 else [THINGS[thing]])
        shop.titles[1000 + n] = " ".join(words)
    by_query: dict[str, list[int]] = {}
    for n in range(titles):
        colour = shop.titles[1000 + n].split()[2]
        for text in (THINGS[n % len(THINGS)], f"{colour} {THINGS[n % len(THINGS)]}"):
            by_query.setdefault(text, []).append(1000 + n)
    shop.queries = {-5 + n: text for n, text in enumerate(sorted(by_query))}
    heldout = {i for i in shop.queries if i % 9 == 4}
    for query_id in sorted(heldout):
        shop.heldout.append(("valid" if query_id % 2 else "test", query_id, by_query[shop.queries[query_id]]))
    trained = [i for i in shop.queries if i not in heldout]
    pairs = [(q, item) for q in trained for item in by_query[shop.queries[q]]]
    chosen = rng.permutation(len(pairs))[:clicks]
    shop.clicks = [pairs[i] for i in chosen]
    return shop


def write_dataset(directory: Path, shop: Shop, *, kind: str = "wordhash", rows: int = 2**12, files: int = 4) -> Manifest:
    """Lay ``shop`` down as a dataset, manifest last."""
    spec = TokenizerSpec(kind=kind, rows=rows, max_query_tokens=12, max_title_tokens=20, normaliser=normalise.hash)
    texts = [*shop.queries.values(), *shop.titles.values()]
    tokenizer = WordHashTokenizer(spec) if kind == "wordhash" else WordPieceTokenizer.train(spec, texts)
    dtype = "int64" if kind == "wordhash" else "uint32"
    strings: set[str] = set()

    def ids(text: str, side: str) -> bytes:
        strings.update(tokenizer.tokens(text, side))
        return encode_ids(tokenizer.ids(text, side), dtype) if text else b""

    def cut(query: str, title: str) -> bytes:
        left = cut_words(normalise(title), normalise(query))
        return ids(left, "title") if left != normalise(title) else b""

    pair_rows = [
        {
            "query_id": q,
            "item_group": i,
            "weight": np.float32(1 + (q + i) % 3),
            "query_logp": np.float32(-3.0),
            "item_logp": np.float32(-5.0 - i % 2),
            "query": ids(shop.queries[q], "query"),
            "title": ids(shop.titles[i], "title"),
            "title_cut": cut(shop.queries[q], shop.titles[i]),
        }
        for q, i in shop.clicks
    ]
    title_rows = [{"item_group": i, "title": ids(t, "title")} for i, t in shop.titles.items()]
    heldout_rows = [
        {"split": s, "query_id": q, "query": ids(shop.queries[q], "query"), "item_groups": items}
        for s, q, items in shop.heldout
    ]
    parts = {
        "pairs": _write(directory / "pairs", pair_rows, files),
        "titles": _write(directory / "titles", title_rows, files),
        "heldout": _write(directory / "heldout", heldout_rows, 1),
    }
    tokenizer.save(directory)
    tokens = []
    if kind == "wordhash":
        token_rows = [
            {"id": token_id(t), "features": np.array(tokenizer.features(t), dtype="<u4").tobytes()}
            for t in sorted(strings, key=token_id)
        ]
        pq.write_table(pa.Table.from_pylist(token_rows), directory / "tokens.parquet")
        tokens = [directory / "tokens.parquet"]
    parts |= {"tokens": tokens, "tokenizer": sorted(directory.glob("tokenizer*.json"))}
    manifest = Manifest(
        ds=DS,
        token_dtype=dtype,
        tokenizer=tokenizer_hash(directory),
        normaliser=spec.normaliser,
        spec={"kind": kind, "rows": rows, "max_query_tokens": 12, "max_title_tokens": 20, "ngrams": [3, 4]},
        inputs={"pairs": "delta:0"},
        parts={name: tuple(DataFile.of(directory, path) for path in paths) for name, paths in parts.items()},
    )
    manifest.write(directory)
    return manifest


def _write(directory: Path, rows: Sequence[dict], files: int) -> Iterable[Path]:
    directory.mkdir(parents=True)
    paths = [directory / f"part-{n}.parquet" for n in range(files)]
    for n, path in enumerate(paths):
        pq.write_table(pa.Table.from_pylist(rows[n::files]), path, row_group_size=64)
    return paths
