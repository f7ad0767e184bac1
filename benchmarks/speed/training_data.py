"""The same pairs for both sides of the training benchmarks: a dataset in our format, and files for sentence-transformers.

Of Home Depot, or made up: queries of 7.5 WordPiece tokens and titles of 29 on average, [CLS] and [SEP] among them, whose
lengths follow gamma distributions as wide as Home Depot's (a title's standard deviation is .4 of its mean there).
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import models, pre_tokenizers, processors

from benchmarks.sets.homedepot_judgements import CLICKED, read_judgements, titles_by_product, unseen_queries
from etl.dataset import DataFile, Manifest, encode_ids, schemas
from etl.text import normalise
from etl.tokenizer import Tokenizer, WordHashTokenizer, token_id, tokenizer_hash
from etl.tokenizer_spec import TokenizerSpec
from etl.warehouse import Warehouse
from etl.wordpiece import TOKENIZER_FILE, WordPieceTokenizer

TokenType = Literal["int64", "uint32"]
DS = dt.date(2024, 5, 7)
WORDPIECE = TokenizerSpec(kind="wordpiece", rows=30_000, normaliser=normalise.hash)
WORDHASH = TokenizerSpec(kind="wordhash", normaliser=normalise.hash)
QUERY_TOKENS, TITLE_TOKENS = (7.5, 0.3), (29.0, 0.4)
"""Mean, and standard deviation in units of it."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILES = 2


@dataclass(frozen=True, slots=True)
class Pairs:
    """Clicked (query, title), normalised, and every title."""

    clicks: list[tuple[str, str]]
    titles: list[str]


def home_depot(directory: str) -> Pairs:
    """Pairs judged a click of the queries that may be seen, and all titles."""
    judgements = read_judgements(directory)
    unseen = unseen_queries(judgements)
    clicked = [j for j in judgements if j.query not in unseen and j.relevance >= CLICKED]
    clicks = [(normalise(j.query), normalise(j.title)) for j in clicked]
    titles = map(normalise, titles_by_product(judgements).values())
    return Pairs(clicks, list(dict.fromkeys([*titles, *(title for _, title in clicks)])))


def made_up(count: int) -> tuple[Pairs, WordPieceTokenizer]:
    """Pairs of words that are one piece each, few of them frequent, and the tokenizer that has just those."""
    rng = np.random.default_rng(0)
    words = [f"w{n:05}" for n in range(WORDPIECE.rows - len(SPECIAL))]

    def texts(mean: float, spread: float) -> list[str]:
        lengths = np.maximum(np.round(rng.gamma(spread**-2, (mean - 2) * spread**2, count)).astype(int), 1)
        return [" ".join(words[i] for i in (len(words) * rng.random(length) ** 3).astype(int)) for length in lengths]

    found = HuggingFaceTokenizer(models.WordPiece({w: i for i, w in enumerate([*SPECIAL, *words])}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found.post_processor = processors.BertProcessing(("[SEP]", SPECIAL.index("[SEP]")), ("[CLS]", SPECIAL.index("[CLS]")))
    clicks = list(zip(texts(*QUERY_TOKENS), texts(*TITLE_TOKENS), strict=True))
    return Pairs(clicks, [title for _, title in clicks]), WordPieceTokenizer(WORDPIECE, found)


def write(root: Path, pairs: Pairs, tokenizer: Tokenizer) -> float:
    """Lay down a warehouse with that dataset alone; returns the CPU seconds that tokenising and writing took."""
    root.mkdir(parents=True, exist_ok=True)
    dataset = Warehouse.at(str(root)).dataset(DS)
    dataset.mkdir(parents=True)
    started = time.process_time()
    dtype: TokenType = "uint32" if isinstance(tokenizer, WordPieceTokenizer) else "int64"
    queries, titles = list(dict.fromkeys(query for query, _ in pairs.clicks)), list(dict.fromkeys(pairs.titles))
    ids = {
        "query": [encode_ids(tokenizer.ids(text, "query"), dtype) for text in queries],
        "title": [encode_ids(tokenizer.ids(text, "title"), dtype) for text in titles],
    }
    asked, shown = _numbers(queries, [q for q, _ in pairs.clicks]), _numbers(titles, [t for _, t in pairs.clicks])
    for part, columns in _parts(ids, asked, shown).items():
        _write(dataset / part, pa.table(columns))
    tokenizer.save(dataset)
    if isinstance(tokenizer, WordHashTokenizer):
        _write_tokens(dataset, tokenizer, [*((q, "query") for q in queries), *((t, "title") for t in titles)])
    _manifest(dataset, tokenizer.spec, dtype)
    return time.process_time() - started


def write_for_others(
    directory: Path, pairs: Pairs, tokenizer: WordPieceTokenizer, encode: Mapping[str, Sequence[str]]
) -> None:
    """What :mod:`benchmarks.speed.sentence_transformers_worker` reads, and texts that it shall encode in the end."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pairs.json").write_text(json.dumps(pairs.clicks), encoding="utf-8")
    (directory / "encode.json").write_text(json.dumps({k: list(v) for k, v in encode.items()}), encoding="utf-8")
    tokenizer.tokenizer.save(str(directory / TOKENIZER_FILE))


def wordpiece(pairs: Pairs) -> WordPieceTokenizer:
    """Trained on these texts; its table has no row too many."""
    texts = [text for pair in pairs.clicks for text in pair]
    found = WordPieceTokenizer.train(WORDPIECE, [*texts, *pairs.titles])
    return WordPieceTokenizer(replace(WORDPIECE, rows=found.tokenizer.get_vocab_size()), found.tokenizer)


def _numbers(texts: Sequence[str], column: Sequence[str]) -> np.ndarray:
    place = {text: n for n, text in enumerate(texts)}
    return np.array([place[text] for text in column])


def _parts(ids: Mapping[str, Sequence[bytes]], asked: np.ndarray, shown: np.ndarray) -> dict[str, dict[str, Any]]:
    """Columns by part; no title is cut, and each query and title is a group of its own."""
    query, title = (pa.array(ids[side], pa.binary()) for side in ("query", "title"))
    number = np.arange(len(title))
    logp = [_logp(column, len(texts)) for column, texts in ((asked, query), (shown, title))]
    return {
        "pairs": {
            "pair_id": np.arange(len(asked)),
            "query_group": asked,
            "item_group": shown,
            "weight": np.ones(len(asked), np.float32),
            "query_logp": logp[0][asked],
            "item_logp": logp[1][shown],
            "query": query.take(pa.array(asked)),
            "title": title.take(pa.array(shown)),
            "title_cut": pa.array([b""] * len(asked), pa.binary()),
        },
        "titles": {"title_id": number, "item_group": number, "item_logp": logp[1], "title": title},
        "corpus": {"title_id": number[:0], "title": title[:0]},
        "heldout": {
            "split": ["test"],
            "query_id": [0],
            "query": query[:1],
            "query_typos": query[:1],
            "language": ["latin"],
            "frequency": ["head"],
            "title_ids": [[0]],
            "seen_title_ids": pa.array([[]], pa.list_(pa.int64())),
        },
        "known": {"query_group": asked, "item_group": shown},
    }


def _logp(numbers: np.ndarray, size: int) -> np.ndarray:
    counts = Counter(numbers.tolist())
    return np.array([np.log(counts[n] / len(numbers)) if counts[n] else -np.inf for n in range(size)], np.float32)


def _write(directory: Path, table: pa.Table) -> None:
    """Parts that are trained on in some files, in random order."""
    directory.mkdir(parents=True)
    files = FILES if directory.name in ("pairs", "titles") else 1
    order = np.random.default_rng(1).permutation(len(table))
    for n in range(files):
        pq.write_table(table.take(pa.array(order[n::files])), directory / f"part-{n:05}.parquet")


def _write_tokens(dataset: Path, tokenizer: WordHashTokenizer, texts: Sequence[tuple[str, Any]]) -> None:
    tokens = sorted({token for text, side in texts for token in tokenizer.tokens(text, side)}, key=token_id)
    features = [np.array(tokenizer.features(token), dtype="<u4").tobytes() for token in tokens]
    columns = {"id": pa.array(map(token_id, tokens), pa.int64()), "features": pa.array(features, pa.binary())}
    pq.write_table(pa.table(columns), dataset / "tokens.parquet")


def _manifest(dataset: Path, spec: TokenizerSpec, dtype: TokenType) -> None:
    paths: dict[Any, list[Path]] = {part: sorted((dataset / part).glob("*")) for part in ("pairs", "titles", "corpus")}
    paths |= {part: sorted((dataset / part).glob("*")) for part in ("heldout", "known")}
    paths |= {"tokens": sorted(dataset.glob("tokens.parquet")), "tokenizer": sorted(dataset.glob("tokenizer*.json"))}
    parts = {part: tuple(DataFile.of(dataset, path) for path in found) for part, found in paths.items()}
    Manifest(
        ds=DS,
        token_dtype=dtype,
        tokenizer=tokenizer_hash(dataset),
        normaliser=spec.normaliser,
        spec=json.loads(json.dumps(asdict(spec))),
        inputs={},
        parts=parts,
        schema=schemas(dataset, parts),
    ).write(dataset)
