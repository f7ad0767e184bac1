"""How many labels change with the training window, beside a supervised TF-IDF model, and what a warm start does to it.

On a generated sample of fourteen days (made under --root if it is not there): windows of seven days that end a week
apart, and a day apart. Two models from two windows label the same catalogue; counted is the share of its items whose term
stays. Both take the nearest, or likeliest, term of each item: no calibration, no abstention. A model that is always wrong
alike agrees too, so the share of right terms stands beside it. What is trained is kept in ROOT/stability.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from benchmarks.presets import like_a_rank, link_inputs, settings_of
from benchmarks.unleased import Unleased
from etl import build_dataset, build_pairs
from etl.config import JobConfig, arg_parser
from etl.contracts import CATALOGUE, PAIRS
from etl.dataset import verify
from etl.dataset_config import DatasetConfig
from etl.job import run_job
from etl.pairs_config import PairsConfig
from etl.sample.__main__ import SampleConfig
from etl.sample.__main__ import run as make_sample
from etl.tokenizer import load_tokenizer
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.baselines import bm25_tokens, clicked_terms
from labeling.machine import hardware
from labeling.terminal import console
from labeling.truth import load_truth
from model.bundle import load_bundle, write_bundle
from model.fit import fit
from model.metrics import intervals
from model.retrieval import top_k
from model.train_config import TrainConfig

log = logging.getLogger(__name__)

LAST = dt.date(2024, 5, 14)
WEEK, DAY = LAST - dt.timedelta(days=7), LAST - dt.timedelta(days=1)
DAYS = 14
JOINED = "joined"
COMPARED = (
    ("a week later", "TF-IDF + linear SVM", "svm {week}", "svm {last}"),
    ("a week later", "ours, each from random weights", "cold {week} 1", "cold {last} 1"),
    ("a week later", "ours, the second from the first's weights, as many epochs", "cold {week} 1", "warm {last} {week} 5"),
    ("a week later", "ours, the second from the first's weights, one epoch", "cold {week} 1", "warm {last} {week} 1"),
    ("a week later", "ours, the second from random weights, of both weeks", "cold {week} 1", "joined {last} 1"),
    ("a day later", "TF-IDF + linear SVM", "svm {day}", "svm {last}"),
    ("a day later", "ours, each from random weights", "cold {day} 1", "cold {last} 1"),
    ("a day later", "ours, the second from the first's weights, one epoch", "cold {day} 1", "warm {last} {day} 1"),
    ("the same window", "ours, another seed", "cold {last} 1", "cold {last} 2"),
)


class StabilityConfig(Unleased, JobConfig):
    """Settings of the comparison."""

    root: str
    """Warehouse of a generated sample of fourteen days; made if it is not there."""

    ds: dt.date = LAST
    """Last day of the sample; no other."""

    clicks: int = 560_000
    """Of the sample: as many a day as the default one has."""


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(StabilityConfig, "python -m benchmarks.stability", __doc__ or ""), StabilityConfig, run, argv)


def run(config: StabilityConfig) -> Mapping[str, Any]:
    """Train what is not there yet, print the table; returns the number of its rows."""
    torch.set_num_threads(1)
    root = Path(config.root).resolve()
    root.mkdir(parents=True, exist_ok=True)
    make_sample(settings_of(SampleConfig, root, LAST, clicks=config.clicks, days=DAYS, if_missing=True))
    warehouse = Warehouse(root)
    truth = load_truth(warehouse)
    assert truth is not None
    items = local_tables.read(warehouse, CATALOGUE, LAST, ("item_id", "title")).filter(pl.col("title").is_not_null())
    right = [truth.terms.get(item, frozenset()) for item in items["item_id"]]
    title = f"{len(items):,} items of {LAST}, on {hardware()}"
    table = Table("windows", "model", "same term (95%)", "right, first", "right, second", title=title)
    names = {"week": WEEK.isoformat(), "day": DAY.isoformat(), "last": LAST.isoformat()}
    for windows, model, *ends in COMPARED:
        first, second = (labels(root, end.format(**names), items) for end in ends)
        same = np.array([a == b for a, b in zip(first, second, strict=True)], dtype=np.float64)
        found = intervals({"same": same})["same"]
        hits = (np.mean([a in of for a, of in zip(each, right, strict=True)]) for each in (first, second))
        table.add_row(
            windows, model, f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})", *(f"{hit:.3f}" for hit in hits)
        )
    console().print(table)
    return {"rows": len(COMPARED)}


def labels(root: Path, name: str, items: pl.DataFrame) -> list[str]:
    """The term_id of each item by a model.

    That is ``svm WINDOW``, ``cold WINDOW SEED``, ``warm WINDOW FROM EPOCHS``, or ``joined LAST SEED`` of all days' clicks.
    """
    result = root / "stability" / f"{name.replace(' ', '_')}.json"
    if not result.is_file():
        kind, window, *rest = name.split()
        ds = dt.date.fromisoformat(window)
        prepare(_of(root, kind), ds)
        found = supervised(root, ds, items) if kind == "svm" else nearest(trained(root, name, ds, *rest), root, items)
        result.parent.mkdir(exist_ok=True)
        result.write_text(json.dumps(found), encoding="utf-8")
    return list(json.loads(result.read_text(encoding="utf-8")))


def prepare(root: Path, ds: dt.date) -> None:
    """Pairs and dataset of the window that ends at ``ds``."""
    if not Warehouse(root).dataset(ds).is_dir():
        build_pairs.run(settings_of(PairsConfig, root, ds, **({"window_days": DAYS} if root.name == JOINED else {})))
        build_dataset.run(settings_of(DatasetConfig, root, ds))


def _of(root: Path, kind: str) -> Path:
    """The warehouse that a model's pairs are built in."""
    if kind != JOINED:
        return root
    place = root / JOINED
    place.mkdir(exist_ok=True)
    link_inputs(root, place)
    return place


def trained(root: Path, name: str, ds: dt.date, of: str, epochs: str = "") -> Path:
    """The bundle of a training; ``of`` is its seed, or the window whose bundle it starts from, for so many epochs."""
    place = root / "stability" / name.replace(" ", "_")
    if not any(place.glob("*/manifest.json")):
        changes: dict[str, Any] = {"seed": 1} if epochs else {"seed": int(of)}
        if epochs:
            start = trained(root, f"cold {of} 1", dt.date.fromisoformat(of), "1")
            changes |= {"init_from": str(start), "epochs": float(epochs)}
        settings = settings_of(TrainConfig, _of(root, name.split()[0]), ds, ranks=1, device="cpu", **changes)
        encoder = fit(settings, verify(settings.dataset)).encoder
        write_bundle(place, encoder, load_tokenizer(settings.dataset), ds=ds, metrics={}, lineage={})
    return next(place.glob("*/manifest.json")).parent


def nearest(path: Path, root: Path, items: pl.DataFrame) -> list[str]:
    """The term with the form nearest to each title."""
    bundle = load_bundle(path)
    forms = [(term.term_id, form) for term in local_tables.vocabulary(Warehouse(root)).terms for form in term.forms]
    form_FD = bundle.encode([form for _, form in forms], "query")
    title_ND = bundle.encode(items["title"].to_list(), "title")
    return [forms[form][0] for form in top_k(title_ND, form_FD, 1)[1][:, 0].tolist()]


def supervised(root: Path, ds: dt.date, items: pl.DataFrame) -> list[str]:
    """A linear SVM over TF-IDF of words and bigrams, trained on the clicked titles whose strongest query is a term."""
    warehouse = Warehouse(root)
    pairs = local_tables.read(warehouse, PAIRS, ds, ("item_id", "query", "weight", "split"))
    pairs = pairs.filter(pl.col("split") == "train")  # what ours is trained on
    term_of = clicked_terms(pairs, local_tables.vocabulary(warehouse))
    catalogue = local_tables.read(warehouse, CATALOGUE, ds, ("item_id", "title")).filter(pl.col("title").is_not_null())
    clicked = catalogue.filter(pl.col("item_id").is_in(list(term_of)))
    words = TfidfVectorizer(
        tokenizer=bm25_tokens, token_pattern=None, lowercase=False, ngram_range=(1, 2), sublinear_tf=True
    )
    model = make_pipeline(words, LinearSVC(random_state=1))
    model.fit(clicked["title"].to_list(), [term_of[item] for item in clicked["item_id"]])
    return list(map(str, model.predict(items["title"].to_list())))


if __name__ == "__main__":
    like_a_rank("benchmarks.stability")
    sys.exit(main())
