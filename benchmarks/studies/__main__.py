"""What each choice is worth: many small trainings on Home Depot, measured on a validation part of its training queries.

Give --root a warehouse of `python -m benchmarks.sets.homedepot warehouse`. A tenth of its queries is held out for this; the
1,107 test queries are not looked at. Cells that are there in ROOT/studies are not made again; tables and plots of those
that are go to --docs, the others are shown as not run.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.presets import like_a_rank, training_of
from benchmarks.sets.homedepot_judgements import HomeDepotConfig
from benchmarks.studies.cells import NOTES, STUDIES, Cell
from benchmarks.studies.data import minilm, slices, study_root
from benchmarks.studies.figure import draw, slices_table, table
from etl.config import JobConfig, arg_parser
from etl.dataset import Manifest, verify
from etl.job import run_job
from etl.tokenizer import load_tokenizer
from etl.warehouse import Warehouse
from labeling.machine import hardware
from model.bundle import write_bundle
from model.evaluate import evaluate
from model.fit import fit
from model.metrics import intervals
from model.presets import Preset
from model.train_config import TrainConfig

log = logging.getLogger(__name__)

MEASURES = ("recall@10", "recall@100", "mrr@10", "typos_recall@10")


class StudyTraining(TrainConfig):
    """A training whose encoder is not a preset's."""

    encoder: dict[str, Any] = {}
    """Fields other than the preset's."""

    def preset_for(self, spec: Mapping[str, Any], tokenizer: Path) -> Preset:
        found = super().preset_for(spec, tokenizer)
        if "layers" in self.encoder:
            joining = 0.9 if self.layers_from is None else self.layers_from
            found = replace(found, weight_lr=5.0, layers_lr=0.25, layers_from=joining if self.encoder["layers"] else 0.0)
        return replace(found, encoder=replace(found.encoder, **self.encoder))


class StudiesConfig(HomeDepotConfig):
    """Settings of the studies."""

    study: Literal["switches", "temperature", "batch", "input", "share", "combined", "start"] = "switches"
    """Which of them."""

    cells: tuple[str, ...] = ()
    """Cells to train, by name; empty: all of the study."""

    seeds: tuple[int, ...] = (1,)
    """A training each."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train, in fp32 on either; only on the CPU is the time of a training noted."""

    docs: str = "docs/studies"
    """Where table and plot go."""


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(StudiesConfig, "python -m benchmarks.studies", __doc__ or ""), StudiesConfig, run, argv)


def run(config: StudiesConfig) -> Mapping[str, Any]:
    """Train the cells that are not there yet; lays down table and plot of all that are."""
    torch.set_num_threads(1)  # a second thread's waiting for the first would count as CPU time
    cells = STUDIES[config.study]
    for seed in config.seeds:
        for name in config.cells or cells:
            trained(config, cells, name, seed)
            lay_down(config, cells)
    rows = lay_down(config, cells)
    return {"cells": len(cells), "run": sum(row is not None for row in rows.values()), "path": config.docs}


def lay_down(config: StudiesConfig, cells: Mapping[str, Cell]) -> Mapping[str, Any]:
    """Write table and plot of the cells that are there; returns the rows."""
    rows = {name: summary(config, cells, name) for name in cells}
    target = Path(config.docs)
    target.mkdir(parents=True, exist_ok=True)
    command = f"python -m benchmarks.studies --study {config.study} --root DIR"
    text = table(config.study, rows, command, NOTES.get(config.study, ""))
    if any("layers" in cell.encoder for cell in cells.values()):
        first = next(iter(cells.values()))
        of = slices(_root(config, cells, replace(first, tokens="wordhash", share=1.0), 1) / f"datasets/ds={config.ds}")
        text += slices_table(rows, of)
    (target / f"{config.study}.md").write_text(text, encoding="utf-8")
    draw(config.study, rows, target / f"{config.study}.png")
    return rows


def trained(config: StudiesConfig, cells: Mapping[str, Cell], name: str, seed: int) -> dict[str, Any]:
    """The result of a cell, made if it is not there, or was made from other settings or another dataset."""
    result, cell = _result(config, name, seed), cells[name]
    root = _root(config, cells, cell, seed)
    changes: dict[str, Any] = {**cell.changes, "seed": seed, "device": config.device, "precision": "fp32"}
    if cell.teacher:
        trained(config, cells, cell.teacher, seed)
        changes["distil_from"] = str(_bundle(config, cell.teacher, seed))
    if cell.pretrained:
        changes["init_from"] = str(minilm())
    dataset = Warehouse(root).dataset(config.ds)
    settings = training_of(StudyTraining, dataset, **changes, encoder=dict(cell.encoder))
    manifest = verify(settings.dataset)
    identity = identify(cell, settings, manifest)
    if result.is_file():
        found = _read(result)
        whole = not _keeps(cells, name) or any(_place(config, name, seed).glob("*/manifest.json"))
        if found.get("identity") == identity and whole:
            return found
        log.warning("%s, seed %d: of other settings or another dataset, or its bundle is gone: trained again", name, seed)
    started = time.process_time()
    fitted = fit(settings, manifest, device=config.device)
    spent = (time.process_time() - started) / 60
    valid = evaluate(fitted.encoder, settings.dataset, manifest, config.device).part("valid")
    content = {
        "identity": identity,
        "cpu_minutes": round(spent, 2) if config.device == "cpu" else None,
        "hardware": hardware(),
        "steps": fitted.settings["steps"],
        "values": {measure: valid.values[measure].round(6).tolist() for measure in MEASURES},
    }
    result.parent.mkdir(parents=True, exist_ok=True)
    if _keeps(cells, name):
        path = write_bundle(
            _place(config, name, seed),
            fitted.encoder.cpu(),
            load_tokenizer(settings.dataset),
            ds=config.ds,
            metrics={},
            lineage={},
        )
        log.info("%s: bundle %s", name, path)
    result.write_text(json.dumps(content) + "\n", encoding="utf-8")
    log.info("%s, seed %d: %.1f CPU minutes, recall@10 %.4f", name, seed, spent, mean(content["values"]["recall@10"]))
    return content


def _keeps(cells: Mapping[str, Cell], name: str) -> bool:
    """Whether a cell's bundle stays: others mine with it, learn from it, or ask for it."""
    return cells[name].kept or name in {next(iter(cells)), *(other.teacher for other in cells.values())}


def identify(cell: Cell, settings: StudyTraining, manifest: Manifest) -> dict[str, Any]:
    """All that a result depends on but the code and the machine."""
    places = {*JobConfig.model_fields, "device", "distil_from", "init_from"}  # what is there follows from the cell
    used: dict[str, Any] = {"cell": cell.trained, "dataset": manifest.digest}
    used["settings"] = settings.model_dump(mode="json", exclude=places)
    if not cell.pretrained:  # else the checkpoint's, whose digest the dataset's tokenizer stands for
        used["preset"] = json.loads(json.dumps(asdict(settings.chosen_preset(manifest))))
    return used


def summary(config: StudiesConfig, cells: Mapping[str, Cell], name: str) -> dict[str, Any] | None:
    """Means over queries and those seeds that the cell's base has too, and how far its recall@10 is from the base's.

    It reads what is there, and trains nothing; None: not run.
    """
    base = cells[name].base or next(iter(cells))
    there = {of: {seed for seed in range(1, 100) if _result(config, of, seed).is_file()} for of in (name, base)}
    seeds = sorted(there[name] & there[base])
    if not seeds:
        return None
    found, theirs = ([_read(_result(config, of, seed)) for seed in seeds] for of in (name, base))
    timed = [each["cpu_minutes"] for each in found if each["cpu_minutes"] is not None]
    row: dict[str, Any] = {"seeds": len(seeds), "cpu_minutes": mean(timed) if timed else None, "steps": found[0]["steps"]}
    row["hardware"] = {seed: each["hardware"] for seed, each in zip(seeds, found, strict=True)}
    row |= {measure: mean(mean(each["values"][measure]) for each in found) for measure in MEASURES}
    row["each"] = _each(found)
    if name != base:
        row |= {"base": base, "less": row["each"] - _each(theirs)}
        row["change"] = list(intervals({"recall@10": row["less"]})["recall@10"])
    return row


def _each(results: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Recall@10 of each query, [Q], the mean over seeds."""
    return np.mean([each["values"]["recall@10"] for each in results], axis=0)


def _read(result: Path) -> dict[str, Any]:
    return dict(json.loads(result.read_text(encoding="utf-8")))


def _root(config: StudiesConfig, cells: Mapping[str, Cell], cell: Cell, seed: int) -> Path:
    first = next(iter(cells))

    def miner() -> Path:
        trained(config, cells, first, seed)
        return _bundle(config, first, seed)

    return study_root(Path(config.root).resolve() / "studies", config.ds, cell, seed, miner)


def _bundle(config: StudiesConfig, name: str, seed: int) -> Path:
    return next(_place(config, name, seed).glob("*/manifest.json")).parent


def _result(config: StudiesConfig, name: str, seed: int) -> Path:
    place = _place(config, name, seed)
    return place.with_name(f"{place.name}.json")


def _place(config: StudiesConfig, name: str, seed: int) -> Path:
    """Directory of a cell's bundle, where another cell needs that; its figures lie beside it."""
    return Path(config.root).resolve() / "studies" / config.study / f"{name.replace(' ', '_')}-{seed}"


if __name__ == "__main__":
    like_a_rank("benchmarks.studies")
    sys.exit(main())
