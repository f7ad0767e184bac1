"""The presets side by side on Home Depot's unseen queries, each trained for the same CPU minutes.

Give --root a warehouse of `python -m benchmarks.sets.homedepot warehouse`. A preset that has run its own epochs before its
minutes are over stops there: more overfits. Finished rows are kept in ROOT/presets and not made again.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from rich.table import Table

from benchmarks.sets.homedepot_evaluation import BUNDLE, FUSED, MEASURES, compare, relevant_products
from benchmarks.sets.homedepot_judgements import HomeDepotConfig, read_judgements, titles_by_product
from etl import build_dataset, build_pairs
from etl.config import arg_parser, from_args
from etl.contracts import INPUTS
from etl.dataset import Manifest, verify
from etl.dataset_config import DatasetConfig
from etl.job import run_job
from etl.pairs_config import PairsConfig
from etl.tokenizer import load_tokenizer
from etl.tokenizer_spec import TokenKind
from etl.warehouse import Warehouse
from labeling.machine import hardware
from labeling.terminal import console
from model.encoder import Encoder
from model.fit import fit
from model.inference import embed
from model.launch import environment
from model.packing import tokenised
from model.presets import PRESETS
from model.train_config import TrainConfig

log = logging.getLogger(__name__)

AnyTraining = TypeVar("AnyTraining", bound=TrainConfig)

TRIAL = 2
"""Steps of the first of the trial trainings; each further one has twice as many."""

TRIAL_SECONDS = 30.0
"""CPU seconds from which on a trial is long enough to tell what a step costs: its first steps are dearer."""

ROWS_OF = (("bag", 3.0), ("bag", 0.5), ("hybrid", 3.0), ("hybrid", 0.5), ("hybrid-both", 0.5), ("published", 0.5))
"""Preset and crops a pair: layers are compared with the bag at the same crops."""

ROWS = {"wordhash": 262_144, "both": 262_144, "wordpiece": 30_000}
SYSTEMS = (BUNDLE, FUSED)


class PresetsConfig(HomeDepotConfig):
    """Settings of the comparison."""

    minutes: Annotated[float, Field(gt=0)] = 10.0
    """CPU minutes of each training."""

    seed: int = 1
    """Of the trainings."""


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(PresetsConfig, "python -m benchmarks.presets", __doc__ or ""), PresetsConfig, run, argv)


def run(config: PresetsConfig) -> Mapping[str, Any]:
    """Make every row that is not there yet, print the table; returns the number of rows."""
    torch.set_num_threads(1)  # a second thread's waiting for the first would count as CPU time
    rows = {f"{name}, {crops:g} crops": row(config, name, crops) for name, crops in ROWS_OF}
    shown = Table(f"{config.minutes:g} CPU minutes each", "CPU minutes", "epochs", *MEASURES, "with BM25")
    for name, found in rows.items():
        alone, fused = (found["figures"][system] for system in SYSTEMS)
        values = [f"{alone[measure]:.3f}" for measure in MEASURES]
        shown.add_row(name, f"{found['cpu_minutes']:.1f}", f"{found['epochs']:.2f}", *values, f"{fused[MEASURES[0]]:.3f}")
    console().print(shown)
    return {"rows": len(rows), "hardware": hardware()}


def row(config: PresetsConfig, name: str, crops: float) -> dict[str, Any]:
    """Train one preset, and measure it on the unseen queries."""
    result = Path(config.root).resolve() / "presets" / f"{name}-{crops:g}-{config.minutes:g}-{config.seed}.json"
    if result.is_file():
        kept = dict(json.loads(result.read_text(encoding="utf-8")))
        if FUSED in kept["figures"]:
            return kept
        log.warning("%s: measured with another weight of BM25 before, and now again", name)
    tokens = PRESETS[name].encoder.tokens
    dataset = dataset_of(Path(config.root).resolve() / "presets" / tokens, config.ds, tokens)
    manifest = verify(dataset)
    settings = training_of(TrainConfig, dataset, preset=name, crops=crops, device="cpu", seed=config.seed)
    epochs = affordable(settings, manifest, config.minutes)
    started = time.process_time()
    fitted = fit(settings.model_copy(update={"epochs": epochs}), manifest)
    spent = (time.process_time() - started) / 60
    found = {
        "cpu_minutes": round(spent, 2),
        "epochs": round(epochs, 3),
        "steps": fitted.settings["steps"],
        "figures": measured(config, dataset, fitted.encoder),
    }
    result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    log.info("%s: %s", name, found)
    return found


def dataset_of(root: Path, ds: dt.date, tokens: TokenKind, tokenizer_from: str = "", **pairs: Any) -> Path:
    """The dataset with these tokens under ``root``, of the inputs that lie two directories above.

    Args:
        root: A warehouse of its own; made here.
        ds: Its day.
        tokens: Kind of them.
        tokenizer_from: Directory of the tokenizer, if it is not to be made.
        pairs: Settings of `labeller pairs` other than those of the warehouse.
    """
    dataset = Warehouse(root).dataset(ds)
    if not dataset.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        link_inputs(root.parents[1], root)
        build_pairs.run(settings_of(PairsConfig, root, ds, **pairs))
        build_dataset.run(
            settings_of(DatasetConfig, root, ds, tokenizer=tokens, tokenizer_from=tokenizer_from, rows=ROWS[tokens])
        )
    return dataset


def link_inputs(source: Path, root: Path) -> None:
    """Have a warehouse read another one's inputs and settings."""
    for file in [*(table.name for table in INPUTS), "warehouse.toml"]:
        if (source / file).exists() and not (root / file).exists():
            (root / file).symlink_to(source / file)


def affordable(settings: TrainConfig, manifest: Manifest, minutes: float) -> float:
    """Epochs that take ``minutes`` of CPU time, or the preset's own if those are fewer."""
    chosen = settings.chosen_preset(manifest)
    steps, before, spent = TRIAL, 0.0, _trial(settings, manifest, chosen.batch, TRIAL)
    while spent < TRIAL_SECONDS or not before:
        steps, before, spent = 2 * steps, spent, _trial(settings, manifest, chosen.batch, 2 * steps)
    step = (spent - before) / (steps / 2)
    steps = max(1, math.floor((60 * minutes - (spent - steps * step)) / step))
    log.info("%s: %.2f CPU seconds a step, %d steps in %g minutes", settings.preset, step, steps, minutes)
    return min(chosen.epochs, (steps + 0.5) * chosen.batch / manifest.rows("pairs"))


def _trial(settings: TrainConfig, manifest: Manifest, batch: int, steps: int) -> float:
    """CPU seconds of a training of so many steps."""
    # Half a step more, since the number of steps is rounded down.
    epochs = (steps + 0.5) * batch / manifest.rows("pairs")
    started = time.process_time()
    fit(settings.model_copy(update={"epochs": epochs}), manifest)
    return time.process_time() - started


def measured(config: PresetsConfig, dataset: Path, encoder: Encoder) -> dict[str, dict[str, float]]:
    """Figures on the unseen queries against all titles."""
    judgements, tokenizer = read_judgements(config.data), load_tokenizer(dataset)
    titles, relevant = titles_by_product(judgements), relevant_products(judgements)
    query_BD = embed(encoder, *tokenised(tokenizer, list(relevant), "query"))
    title_ND = embed(encoder, *tokenised(tokenizer, list(titles.values()), "title"))
    return compare(query_BD, title_ND, relevant, titles)


def settings_of(kind: Any, root: Path, ds: Any, **changes: Any) -> Any:
    """Settings as the job itself reads them, from the warehouse's warehouse.toml, with ``changes``."""
    args = arg_parser(kind, "presets", "").parse_args(["--root", str(root), "--ds", str(ds)])
    return kind(**{**from_args(kind, args).model_dump(), **changes})


def training_of(kind: type[AnyTraining], dataset: Path, **changes: Any) -> AnyTraining:
    """A training by one rank, as the presets have it and not as warehouse.toml, which holds what was chosen in the end."""
    asked = {"query_word_dropout": 0.0, "ranks": 1}  # queries of Home Depot are judged against whole titles
    return kind(root=str(dataset.parents[1]), ds=dataset.name.removeprefix("ds="), **asked | changes)


def like_a_rank(module: str) -> None:
    """Start the module that runs again as the launcher would: malloc and OpenMP read their settings once.

    Memory that goes back to the system with each step, and is cleared for the next, took a fifth of a training's time here.
    """
    found = environment(1, "cpu", local=True) | {"OMP_NUM_THREADS": "1"}
    if any(os.environ.get(name) != found[name] for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")):
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], found)


if __name__ == "__main__":
    like_a_rank("benchmarks.presets")
    sys.exit(main())
