"""Small datasets in the layout of etl.dataset, without Spark: plain Parquet is what ``make_batch_reader`` reads."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from etl.bert_tokenizer import bert_tokenizer
from etl.dataset import COLUMNS, DataFile, Manifest, encode_ids, schemas
from etl.text import cut_words, language_of, normalise
from etl.tokenizer import BothTokenizer, TokenizerSpec, WordHashTokenizer, WordPieceTokenizer, token_id, tokenizer_hash
from etl.typos import misspelt

DS = dt.date(2024, 5, 7)
THINGS = ("sneakers", "kettle", "dress", "lamp", "drill", "sofa", "连衣裙", "运动鞋")
COLOURS = ("black", "white", "red", "green", "blue", "grey", "红色", "白色")
BRANDS = ("zoom", "acme", "nord", "vega", "luma", "orbit")
_ARROW = {
    "int64": pa.int64(),
    "float": pa.float32(),
    "binary": pa.binary(),
    "string": pa.string(),
    "list": pa.list_(pa.int64()),
}
SCHEMAS = {part: pa.schema([(name, _ARROW[kind]) for name, kind in columns.items()]) for part, columns in COLUMNS.items()}


@dataclass
class Shop:
    """Texts by id, clicks between them, and held-out queries."""

    queries: dict[int, str] = field(default_factory=dict)
    titles: dict[int, str] = field(default_factory=dict)
    clicks: list[tuple[int, int]] = field(default_factory=list)
    corpus: dict[int, str] = field(default_factory=dict)
    """Titles that only evaluation sees."""
    thinned: list[tuple[int, int]] = field(default_factory=list)
    """Clicks that are known and not trained on."""
    heldout: list[tuple[str, int, list[int]]] = field(default_factory=list)
    """(split, query id, ids of the titles that were clicked for it)."""


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


def write_dataset(
    directory: Path,
    shop: Shop,
    *,
    kind: str = "wordhash",
    rows: int = 2**12,
    files: int = 4,
    tokenizer_from: Path | None = None,
) -> Manifest:
    """Lay ``shop`` down as a dataset, manifest last; ``tokenizer_from`` is a directory of a BERT."""
    limits = {"max_query_tokens": 12, "max_title_tokens": 20}
    spec = TokenizerSpec(kind=kind, rows=rows, pieces=200 * (kind == "both"), normaliser=normalise.hash, **limits)
    texts = [*shop.queries.values(), *shop.titles.values()]
    trained = {"wordpiece": WordPieceTokenizer, "both": BothTokenizer}
    tokenizer = trained[kind].train(spec, texts) if kind in trained else WordHashTokenizer(spec)
    if tokenizer_from is not None:
        tokenizer = bert_tokenizer(tokenizer_from, spec)
        kind, rows = "wordpiece", tokenizer.spec.rows
    dtype = "int64" if tokenizer.spec.hashed else "uint32"
    strings: set[str] = set()

    def ids(text: str, side: str) -> bytes:
        strings.update(tokenizer.tokens(text, side))
        return encode_ids(tokenizer.ids(text, side), dtype) if text else b""

    def cut(query: str, title: str) -> bytes:
        left = cut_words(normalise(title), normalise(query))
        return ids(left, "title") if left != normalise(title) else b""

    asked, shown = (Counter(click[side] for click in shop.clicks) for side in (0, 1))
    share = {key: np.float32(np.log(n / len(shop.clicks))) for counts in (asked, shown) for key, n in counts.items()}
    pair_rows = [
        {
            "pair_id": n,
            "query_group": q,
            "item_group": i,
            "weight": np.float32(1 + (q + i) % 3),
            "query_logp": share[q],
            "item_logp": share[i],
            "query": ids(shop.queries[q], "query"),
            "title": ids(shop.titles[i], "title"),
            "title_cut": cut(shop.queries[q], shop.titles[i]),
        }
        for n, (q, i) in enumerate(shop.clicks)
    ]
    title_rows = [
        {"title_id": i, "item_group": i, "item_logp": share.get(i, np.float32(-np.inf)), "title": ids(t, "title")}
        for i, t in shop.titles.items()
    ]
    corpus_rows = [{"title_id": i, "title": ids(t, "title")} for i, t in shop.corpus.items()]
    heldout_rows = [
        {
            "split": s,
            "query_id": q,
            "query": ids(shop.queries[q], "query"),
            "query_typos": ids(misspelt(shop.queries[q]), "query"),
            "language": language_of(shop.queries[q]),
            "frequency": "head" if len(items) > 10 else "tail",
            "title_ids": items,
            "seen_title_ids": sorted({i for asked, i in [*shop.clicks, *shop.thinned] if asked == q}),
        }
        for s, q, items in shop.heldout
    ]
    known_rows = [{"query_group": q, "item_group": i} for q, i in [*shop.clicks, *shop.thinned]]
    rows_of = {"titles": title_rows, "corpus": corpus_rows, "heldout": heldout_rows, "known": known_rows, "pairs": pair_rows}
    parts = {part: _write(directory / part, part_rows, files) for part, part_rows in rows_of.items()}
    tokenizer.save(directory)
    tokens = []
    if tokenizer.spec.hashed:
        token_rows = [
            {"id": token_id(t), "features": np.array(tokenizer.features(t), dtype="<u4").tobytes()}
            for t in sorted(strings, key=token_id)
        ]
        pq.write_table(pa.Table.from_pylist(token_rows), directory / "tokens.parquet")
        tokens = [directory / "tokens.parquet"]
    parts |= {"tokens": tokens, "tokenizer": sorted(directory.glob("tokenizer*.json"))}
    files_of = {name: tuple(DataFile.of(directory, path) for path in paths) for name, paths in parts.items()}
    manifest = Manifest(
        ds=DS,
        token_dtype=dtype,
        tokenizer=tokenizer_hash(directory),
        normaliser=spec.normaliser,
        spec={"kind": kind, "rows": rows, "ngrams": [3, 4], **limits},
        inputs={"pairs": "delta:0"},
        parts=files_of,
        schema=schemas(directory, files_of),
        languages=dict(Counter(language_of(shop.queries[q]) for q in {q for q, _ in shop.clicks})),
    )
    manifest.write(directory)
    return manifest


def _write(directory: Path, rows: Sequence[dict], files: int) -> Iterable[Path]:
    """A part with the schema of the format; only the two that are trained on have more than one file."""
    directory.mkdir(parents=True)
    number = files if directory.name in ("pairs", "titles") else 1
    paths = [directory / f"part-{n}.parquet" for n in range(number)]
    for n, path in enumerate(paths):
        table = pa.Table.from_pylist(rows[n::number], schema=SCHEMAS[directory.name])
        pq.write_table(table, path, row_group_size=64)
    return paths
