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
from etl.tokenizer import BothTokenizer, Tokenizer, WordHashTokenizer, token_id, tokenizer_hash
from etl.tokenizer_spec import TokenizerSpec
from etl.typos import misspelt
from etl.wordpiece import WordPieceTokenizer

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
    tokens = _Tokens(_tokenizer(shop, kind, rows, tokenizer_from))
    parts = {part: _write(directory / part, part_rows, files) for part, part_rows in _rows(shop, tokens).items()}
    tokens.tokenizer.save(directory)
    parts |= {"tokens": _write_features(directory, tokens), "tokenizer": sorted(directory.glob("tokenizer*.json"))}
    manifest = _manifest(directory, shop, tokens, parts)
    manifest.write(directory)
    return manifest


def _tokenizer(shop: Shop, kind: str, rows: int, tokenizer_from: Path | None) -> Tokenizer:
    limits = {"max_query_tokens": 12, "max_title_tokens": 20}
    spec = TokenizerSpec(kind=kind, rows=rows, pieces=200 * (kind == "both"), normaliser=normalise.hash, **limits)
    if tokenizer_from is not None:
        return bert_tokenizer(tokenizer_from, spec)
    trained = {"wordpiece": WordPieceTokenizer, "both": BothTokenizer}
    if kind in trained:
        return trained[kind].train(spec, [*shop.queries.values(), *shop.titles.values()])
    return WordHashTokenizer(spec)


@dataclass
class _Tokens:
    """Token ids as the format stores them, and the tokens that there were."""

    tokenizer: Tokenizer
    seen: set[str] = field(default_factory=set)

    @property
    def dtype(self) -> str:
        return "int64" if self.tokenizer.spec.hashed else "uint32"

    def ids(self, text: str, side: str) -> bytes:
        self.seen.update(self.tokenizer.tokens(text, side))
        return encode_ids(self.tokenizer.ids(text, side), self.dtype) if text else b""

    def cut(self, query: str, title: str) -> bytes:
        left = cut_words(normalise(title), normalise(query))
        return self.ids(left, "title") if left != normalise(title) else b""


def _rows(shop: Shop, tokens: _Tokens) -> dict[str, list[dict]]:
    """Of every part."""
    asked, shown = (Counter(click[side] for click in shop.clicks) for side in (0, 1))
    share = {key: np.float32(np.log(n / len(shop.clicks))) for counts in (asked, shown) for key, n in counts.items()}
    titles = [
        {
            "title_id": i,
            "item_group": i,
            "item_logp": share.get(i, np.float32(-np.inf)),
            "title": tokens.ids(text, "title"),
        }
        for i, text in shop.titles.items()
    ]
    return {
        "titles": titles,
        "corpus": [{"title_id": i, "title": tokens.ids(text, "title")} for i, text in shop.corpus.items()],
        "heldout": [_heldout_row(shop, tokens, *query) for query in shop.heldout],
        "known": [{"query_group": q, "item_group": i} for q, i in [*shop.clicks, *shop.thinned]],
        "pairs": [_pair_row(shop, tokens, share, n, q, i) for n, (q, i) in enumerate(shop.clicks)],
    }


def _pair_row(shop: Shop, tokens: _Tokens, share: dict[int, np.float32], n: int, query_id: int, title_id: int) -> dict:
    query, title = shop.queries[query_id], shop.titles[title_id]
    return {
        "pair_id": n,
        "query_group": query_id,
        "item_group": title_id,
        "weight": np.float32(1 + (query_id + title_id) % 3),
        "query_logp": share[query_id],
        "item_logp": share[title_id],
        "query": tokens.ids(query, "query"),
        "title": tokens.ids(title, "title"),
        "title_cut": tokens.cut(query, title),
    }


def _heldout_row(shop: Shop, tokens: _Tokens, split: str, query_id: int, title_ids: list[int]) -> dict:
    query = shop.queries[query_id]
    return {
        "split": split,
        "query_id": query_id,
        "query": tokens.ids(query, "query"),
        "query_typos": tokens.ids(misspelt(query), "query"),
        "language": language_of(query),
        "frequency": "head" if len(title_ids) > 10 else "tail",
        "title_ids": title_ids,
        "seen_title_ids": sorted({i for asked, i in [*shop.clicks, *shop.thinned] if asked == query_id}),
    }


def _write_features(directory: Path, tokens: _Tokens) -> list[Path]:
    """The table of the tokens that there were; none where a token is its only feature."""
    if not tokens.tokenizer.spec.hashed:
        return []
    rows = [
        {"id": token_id(t), "features": np.array(tokens.tokenizer.features(t), dtype="<u4").tobytes()}
        for t in sorted(tokens.seen, key=token_id)
    ]
    pq.write_table(pa.Table.from_pylist(rows), directory / "tokens.parquet")
    return [directory / "tokens.parquet"]


def _manifest(directory: Path, shop: Shop, tokens: _Tokens, parts: dict[str, Iterable[Path]]) -> Manifest:
    spec = tokens.tokenizer.spec
    names = ("kind", "rows", "max_query_tokens", "max_title_tokens")
    files = {name: tuple(DataFile.of(directory, path) for path in paths) for name, paths in parts.items()}
    return Manifest(
        ds=DS,
        token_dtype=tokens.dtype,
        tokenizer=tokenizer_hash(directory),
        normaliser=spec.normaliser,
        spec={"ngrams": [3, 4]} | {name: getattr(spec, name) for name in names},
        inputs={"pairs": "delta:0"},
        parts=files,
        schema=schemas(directory, files),
        languages=dict(Counter(language_of(shop.queries[q]) for q in {q for q, _ in shop.clicks})),
        scripts={"latin": 160},
    )


def _write(directory: Path, rows: Sequence[dict], files: int) -> Iterable[Path]:
    """A part with the schema of the format; only the two that are trained on have more than one file."""
    directory.mkdir(parents=True)
    number = files if directory.name in ("pairs", "titles") else 1
    paths = [directory / f"part-{n}.parquet" for n in range(number)]
    for n, path in enumerate(paths):
        table = pa.Table.from_pylist(rows[n::number], schema=SCHEMAS[directory.name])
        pq.write_table(table, path, row_group_size=64)
    return paths
