"""What each rule that makes pairs is worth: each switched off in turn, an encoder trained on what comes out, and measured.

On a generated sample. All encoders are measured on one and the same thing, that of the first row: its held-out queries
against all titles (recall@10), and whether the nearest of all forms of all terms is a true term of an item whose title
lacks its terms (hit@1). No labelling, no calibration: the difference that the pairs make is in the vectors. Several seeds
tell it from chance. Finished rows are kept in ROOT/ablation and not made again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field
from rich.table import Table

from benchmarks.unleased import Unleased
from etl import build_dataset, build_pairs
from etl.cleaning import RULES
from etl.config import JobConfig, arg_parser, from_args
from etl.contracts import CATALOGUE, INPUTS
from etl.dataset import verify
from etl.dataset_config import DatasetConfig
from etl.errors import InputError
from etl.job import run_job
from etl.pairs_config import PairsConfig
from etl.tokenizer import load_tokenizer
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.terminal import console
from labeling.truth import load_truth
from model.encoder import Encoder
from model.evaluate import evaluate
from model.fit import fit
from model.inference import embed
from model.packing import tokenised
from model.retrieval import top_k
from model.train_config import TrainConfig

log = logging.getLogger(__name__)

NEVER = 10**9
BASE = "everything on"
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    BASE: ({}, {}),
    "bot": ({"max_actions_per_hour": NEVER}, {}),
    "scraper": ({"max_impressions_per_hour": NEVER}, {}),
    "not_shown": ({"require_impressions": "never"}, {}),
    "long_query": ({"max_query_characters": NEVER}, {}),
    "short_dwell, fast_return": ({"min_dwell_ms": 0, "min_return_ms": 0}, {}),
    "repeat_in_session": ({"session_gap_minutes": 0}, {}),
    "few_users": ({"min_users": 1}, {}),
    "diffuse_query": ({"max_query_entropy": 0}, {}),
    "few_pair_users on (2)": ({"min_pair_users": 2}, {}),
    "thinning on (1e-3)": ({"subsample_queries": 1e-3, "subsample_items": 1e-3}, {}),
    "near-duplicates": ({"near_duplicates": 0}, {}),
    "held-out items": ({"test_item_share": 0}, {}),
    "weights on (power .5)": ({}, {"weight_power": 0.5}),
    "weights on, no position bias": ({"position_bias": "none"}, {"weight_power": 0.5}),
    "weights on, cart and order as a click": ({"cart_weight": 1, "order_weight": 1}, {"weight_power": 0.5}),
    "log-q on": ({}, {"logq": 1.0}),
    "title crops": ({}, {"crops": 0.0}),
    "query-word dropout": ({}, {"query_word_dropout": 0.0}),
}
"""Settings of [pairs] and [train] by row; a name alone is what is switched off."""

TRAINING = {"preset": "bag", "epochs": 2.0, "batch": 512, "crops": 0.5}
"""The default preset without its layers, which join for the last tenth and would take most of the time."""


class AblationConfig(Unleased, JobConfig):
    """Settings of the study."""

    root: str
    """A generated sample; what is made lies below its directory ablation/."""

    ds: dt.date = dt.date(2024, 5, 7)
    """Day to study."""

    seeds: Annotated[int, Field(ge=1)] = 2
    """Encoders trained for each row."""


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(AblationConfig, "python -m benchmarks.ablation", __doc__ or ""), AblationConfig, run, argv)


def run(config: AblationConfig) -> Mapping[str, Any]:
    """Make every row that is not there yet, print the table; returns the number of rows."""
    warehouse = Warehouse.of(config)
    if load_truth(warehouse) is None:
        raise InputError(f"{warehouse.root} has no truth/: give --root a warehouse of `labeller sample`")
    made: dict[str, dict[str, Any]] = {}
    for name, (pairs, training) in VARIANTS.items():
        made[name] = row(config, name, pairs, training, made)
        log.info("%s: %s", name, made[name])
    show(made)
    return {"rows": len(made)}


def row(
    config: AblationConfig, name: str, pairs: Mapping[str, Any], training: Mapping[str, Any], made: Mapping[str, Any]
) -> dict[str, Any]:
    """One row: how many pairs there are, and the figures of each seed."""
    root = place(config, name)
    result = root / "result.json"
    if result.is_file():
        return dict(json.loads(result.read_text(encoding="utf-8")))
    base = made.get(BASE, {})
    rules = [rule for rule in name.split(", ") if rule in RULES]
    if rules and not any(base["dropped"][rule] for rule in rules):
        return dict(base)  # nothing to drop, so nothing to keep instead
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    if pairs or not base:
        found = build(config, root, pairs)
    else:
        found, root = {key: base[key] for key in ("kept", "pairs", "dropped", "digest")}, place(config, BASE)
    same = [other for other in made.values() if not training and other["digest"] == found["digest"]]
    found["figures"] = same[0]["figures"] if same else trained(config, root, training)
    found["digest"] = "" if training else found["digest"]
    result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def place(config: AblationConfig, name: str) -> Path:
    """Where the row of that name lies."""
    return Path(config.root).resolve() / "ablation" / hashlib.sha256(name.encode()).hexdigest()[:8]


def build(config: AblationConfig, root: Path, pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs and dataset below ``root``, with these settings of [pairs]; returns their counts and identity."""
    for file in [*(table.name for table in INPUTS), "warehouse.toml"]:
        if (Path(config.root) / file).exists():
            (root / file).symlink_to(Path(config.root).resolve() / file)
    settings = ["--root", str(root), "--ds", str(config.ds)]
    figures = build_pairs.run(_settings(PairsConfig, settings, pairs))
    build_dataset.run(_settings(DatasetConfig, settings, {}))
    dropped = {rule: figures[rule] for rule in RULES}
    digest = verify(Warehouse.at(str(root)).dataset(config.ds)).digest
    return {"kept": figures["kept"], "pairs": figures["pairs"], "dropped": dropped, "digest": digest}


def trained(config: AblationConfig, root: Path, training: Mapping[str, Any]) -> list[dict[str, float]]:
    """Figures of an encoder for each seed."""
    found = []
    for seed in range(1, config.seeds + 1):
        settings = TrainConfig(root=str(root), ds=config.ds, seed=seed, ranks=1, device="cpu", **TRAINING | dict(training))
        encoder = fit(settings, verify(settings.dataset)).encoder
        found.append(measured(config, root, encoder))
    return found


def measured(config: AblationConfig, root: Path, encoder: Encoder) -> dict[str, float]:
    """recall@10 on the first row's held-out queries, and term hit@1 on items whose title lacks their terms."""
    dataset = Warehouse.at(str(place(config, BASE))).dataset(config.ds)
    recall = evaluate(encoder, dataset, verify(dataset)).figures()["test"]["recall@10"]
    warehouse = Warehouse.at(config.root)
    truth = load_truth(warehouse)
    assert truth is not None
    tokenizer = load_tokenizer(Warehouse.at(str(root)).dataset(config.ds))
    forms = [(term.term_id, form) for term in local_tables.vocabulary(warehouse).terms for form in term.forms]
    items = local_tables.read(warehouse, CATALOGUE, config.ds, ("item_id", "title"))
    lacking = items.filter(pl.col("item_id").is_in(list(truth.lacking)) & pl.col("title").is_not_null())
    term_FD = embed(encoder, *tokenised(tokenizer, [form for _, form in forms], "query"))
    item_ND = embed(encoder, *tokenised(tokenizer, lacking["title"].to_list(), "title"))
    _, best = top_k(item_ND, term_FD, 1)
    hits = [forms[form][0] in truth.terms[item] for item, form in zip(lacking["item_id"], best[:, 0].tolist(), strict=True)]
    return {"recall@10": recall, "hit@1": float(np.mean(hits))}


def show(made: Mapping[str, Mapping[str, Any]]) -> None:
    """Means over the seeds, and what each row differs from the first by."""
    table = Table("switched off", "acts kept", "pairs", "recall@10", "", "hit@1, title lacks the term", "")
    base = {key: _mean(made[BASE], key) for key in ("recall@10", "hit@1")}
    for name, found in made.items():
        cells = [name, f"{found['kept']:,}", f"{found['pairs']:,}"]
        for key, value in base.items():
            spread = np.std([figure[key] for figure in found["figures"]])
            cells += [f"{_mean(found, key):.3f} ± {spread:.3f}", f"{_mean(found, key) - value:+.3f}"]
        table.add_row(*cells)
    console().print(table)


def _mean(found: Mapping[str, Any], key: str) -> float:
    return float(np.mean([figure[key] for figure in found["figures"]]))


def _settings(config: Any, flags: Sequence[str], changes: Mapping[str, Any]) -> Any:
    """Settings as the job itself reads them, from the sample's warehouse.toml, with ``changes``."""
    args = arg_parser(config, "ablation", "").parse_args(list(flags))
    return from_args(config, args).model_copy(update=dict(changes))


if __name__ == "__main__":
    sys.exit(main())
