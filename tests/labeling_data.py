"""A small real bundle (untrained: hashed words alone make equal words near), vocabulary and tree for labelling tests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyspark.sql import SparkSession

from etl import tables
from etl.contracts import PAIRS
from etl.taxonomy import Taxonomy
from etl.text import Normaliser, normalise
from etl.tokenizer import WordHashTokenizer, token_id
from etl.tokenizer_spec import TokenizerSpec
from etl.vocabulary import Vocabulary
from etl.warehouse import Warehouse
from labeling.item_index import ItemIndex, load_item_index, write_item_index
from labeling.probability import Calibration
from labeling.vectors import Encode
from model.bundle import Bundle, load_bundle, set_alias, write_bundle
from model.encoder import Encoder
from model.presets import EncoderConfig
from tests.rows import DS, node, term

ROWS, DIM = 2**12, 64

TERMS = [
    term("t1", "sneakers", synonyms=["trainers", "running shoes"]),
    term("t2", "kettle"),
    term("t3", "dress", synonyms=["连衣裙"]),
    term("t4", "table lamp"),
]

NODES = [
    node("f", None, "Fashion"),
    node("f1", "f", "Sneakers"),
    node("f2", "f", "Dress"),
    node("h", None, "Home"),
    node("h1", "h", "Kettle"),
    node("h2", "h", "Lamps"),
    node("h21", "h2", "Table lamp"),
    node("h22", "h2", "Floor lamp"),
]


METRICS = {"counts": {"pairs": 100}, "settings": {"steps": 5}, "seconds": 1.5}
"""What calibration reads of a training."""


def write_small_bundle(
    root: Path, seed: int = 0, poison: str | None = None, metrics: dict[str, Any] = METRICS, **spec: Any
) -> Bundle:
    """A promoted untrained bag of words with a faint layer beside it; ``poison`` makes any text with it not a number.

    ``spec`` are fields of TokenizerSpec.
    """
    torch.manual_seed(seed)
    normaliser = Normaliser(simplified=spec.get("simplified_chinese", False)).hash
    tokenizer = WordHashTokenizer(TokenizerSpec(rows=ROWS, normaliser=normaliser, **spec))
    words_alone = Encoder(EncoderConfig(rows=ROWS, dim=DIM))
    encoder = Encoder(EncoderConfig(rows=ROWS, dim=DIM, layers=1, hidden=64, heads=2, ffn=128))
    encoder.embeddings.word_embeddings = words_alone.embeddings.word_embeddings
    torch.nn.init.normal_(encoder.projection.weight, std=0.0005)
    if poison:
        with torch.no_grad():
            encoder.embeddings.word_embeddings.weight[tokenizer.features(poison)[0]] = float("nan")
    warehouse = Warehouse.at(str(root))
    path = write_bundle(
        warehouse.bundles, encoder, tokenizer, ds=DS, metrics=metrics, lineage={"inputs": {}, "dataset": str(DS)}
    )
    for alias in ("candidate", "champion"):
        set_alias(warehouse, alias, path)
    return load_bundle(path)


def query_encoder(bundle: Bundle) -> Encode:
    return partial(bundle.encode, side="query")


def title_vectors(bundle: Bundle, titles: Sequence[str]) -> np.ndarray:
    """Float64 unit vectors, by way of float16 as in the table."""
    found = bundle.encode([normalise(title) for title in titles], side="title").astype(np.float16).astype(np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def vocabulary(rows: list[dict[str, Any]] | None = None) -> Vocabulary:
    return Vocabulary.of(TERMS if rows is None else rows)


def taxonomy(rows: list[dict[str, Any]] | None = None) -> Taxonomy:
    return Taxonomy.of(NODES if rows is None else rows)


def uncalibrated() -> Calibration:
    return Calibration.of(None)


def pair(
    query: str, item_id: str, title: str, split: str = "train", weight: float = 1.0, ds: dt.date = DS
) -> dict[str, Any]:
    """A PAIRS row."""
    return {
        "ds": ds,
        "query_id": token_id(query),
        "query": normalise(query),
        "item_id": item_id,
        "query_group": token_id(query),
        "title_id": token_id(normalise(title)),
        "item_group": token_id(normalise(title)),
        "title": title,
        "clicks": 1,
        "users": 1,
        "weight": weight,
        "first_day": ds,
        "sampled": split == "train",
        "query_logp": -1.0,
        "item_logp": -1.0,
        "split": split,
    }


def write_pairs(spark: SparkSession, root: Path, rows: list[dict[str, Any]]) -> None:
    """Lay rows of one day down as the table pairs."""
    frame = spark.createDataFrame([tuple(row[name] for name in PAIRS.names) for row in rows], PAIRS.ddl)
    path = Warehouse.at(str(root)).table(PAIRS)
    tables.write_slice(frame, path, PAIRS, {"ds": rows[0]["ds"]})


def write_index(spark: SparkSession, root: Path, texts: dict[tuple[str, ...], np.ndarray], bundle: str = "b1") -> ItemIndex:
    """An item index of DS: items of one text -> their vector."""
    rows = [(list(items), vector.astype("<f2").tobytes()) for items, vector in texts.items()]
    frame = spark.createDataFrame(rows, "items array<string>, vector binary").repartition(3)
    return load_item_index(write_item_index(frame, Warehouse.at(str(root)), bundle=bundle, ds=DS, run_id="r1"))


def index_titles(spark: SparkSession, root: Path, bundle: Bundle, titles: dict[str, str]) -> ItemIndex:
    """An item index of titles of one item each, all different."""
    vectors = title_vectors(bundle, list(titles.values()))
    return write_index(spark, root, {(item,): vector for item, vector in zip(titles, vectors, strict=True)}, bundle.id)
