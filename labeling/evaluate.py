"""Measures a bundle on the held-out queries of a day's dataset, or on an evaluation set of your own; starts no Spark.

Figures by split and slice, each with its 95% interval (docs/evaluation.md), go to the terminal and to
`reports/ds=…/evaluation-BUNDLE.json`, `.md` and `.png`; those of a set of your own have the file's name behind the bundle's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from etl import config as settings
from etl.config import JobConfig
from etl.dataset import verify
from etl.errors import InputError
from etl.job import run_job
from etl.tokenizer import tokenizer_hash
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.encoding import labelling_bundle
from labeling.evaluation_sections import differences_section, draw, evaluation_sections
from labeling.evaluation_set import EvaluationSet, Remark, evaluate_set, read_evaluation_set
from labeling.machine import hardware
from labeling.sections import markdown, show
from labeling.term_pairs import across_languages
from labeling.terminal import console
from labeling.truth import load_truth
from model.bundle import CANDIDATE, CHAMPION, Bundle, candidate, load_bundle
from model.evaluate import Evaluation, evaluate
from model.metrics import Interval


class EvaluateConfig(JobConfig):
    """What to measure."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse",)

    bundle: str = ""
    """Name of a directory under bundles/, "candidate" or "champion"; the champion unless given."""

    against: str = ""
    """A second bundle, named likewise, to compare with on the same queries, one by one; none unless given."""

    queries: str = ""
    """CSV file with the columns query and item_id, a row for each item that is right for a query: an evaluation set of your
    own, asked against the catalogue of the day; the dataset's held-out queries unless given."""

    @property
    def writes(self) -> bool:
        """Its files are of a bundle, and no stage reads them: a night need not end before somebody may measure."""
        return False


@dataclass(frozen=True, slots=True)
class Result:
    """What is written as JSON."""

    root: str
    ds: str
    bundle: str
    queries: str
    hardware: str
    seconds: float
    figures: Mapping[str, Any]
    slices: Mapping[str, Any]
    remarks: Sequence[Remark]
    against: str
    differences: Mapping[str, Mapping[str, Interval]]
    """Bundle less ``against``, by split and measure."""
    term_pairs: Mapping[str, Any]


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate, print, and write the figures of a day.

    Raises:
        InputError: no such bundle, dataset or file, or one that cannot be used with the others.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(config)
    bundle = load_bundle(chosen_bundle(warehouse, config.bundle))
    own = own_set(warehouse, config, bundle)
    evaluation = evaluate_set(own, bundle) if own else evaluate_heldout(warehouse, config, bundle)
    other = load_bundle(chosen_bundle(warehouse, config.against)) if config.against else None
    result = Result(
        root=str(warehouse.root),
        ds=config.ds.isoformat(),
        bundle=bundle.id,
        queries=config.queries or f"datasets/ds={config.ds}",
        hardware=hardware(),
        seconds=round(time.monotonic() - started, 1),
        figures=evaluation.figures(),
        slices=evaluation.slices(),
        remarks=own.remarks if own else (),
        against=other.id if other else "",
        differences=evaluation.less(answered_by(other, warehouse, config, own)) if other else {},
        term_pairs=term_pairs(warehouse, config, bundle),
    )
    stem = f"evaluation-{bundle.id}" + (f"-{Path(config.queries).stem}" if config.queries else "")
    path = write(result, evaluation, warehouse.report(config.ds) / stem)
    return {"bundle": bundle.id, "queries": len(evaluation.relevant), "path": path}


def own_set(warehouse: Warehouse, config: EvaluateConfig, bundle: Bundle) -> EvaluationSet | None:
    """The set of ``--queries``, as a bundle reads texts; None without that flag."""
    if not config.queries:
        return None
    return read_evaluation_set(Path(config.queries).expanduser(), warehouse, config.ds, bundle)


def answered_by(other: Bundle, warehouse: Warehouse, config: EvaluateConfig, own: EvaluationSet | None) -> Evaluation:
    """What a second bundle answers to the queries that the first one was asked.

    Raises:
        InputError: it reads texts otherwise, so that its queries or titles are others.
    """
    if own is None:
        return evaluate_heldout(warehouse, config, other)
    theirs = own_set(warehouse, config, other)
    assert theirs is not None
    if (theirs.gold, theirs.titles) != (own.gold, own.titles):
        raise InputError(
            f"bundle {other.id} has other [text] settings, so that its queries or titles are others: evaluate each alone"
        )
    return evaluate_set(theirs, other)


def chosen_bundle(warehouse: Warehouse, name: str) -> Path:
    """Directory of a bundle by name, of the candidate, or of the champion.

    Raises:
        InputError: it is not there.
    """
    if name != CANDIDATE:
        return labelling_bundle(warehouse, "" if name == CHAMPION else name)
    path = candidate(warehouse)
    if path is None:
        raise InputError(f"{warehouse.bundles} has no candidate: run `labeller train` first")
    return path


def evaluate_heldout(warehouse: Warehouse, config: EvaluateConfig, bundle: Bundle) -> Evaluation:
    """Ask a bundle the held-out queries of the day's dataset.

    Raises:
        InputError: the dataset is damaged, holds no query, or has the tokens of another tokenizer.
    """
    dataset = warehouse.dataset(config.ds)
    manifest = verify(dataset)
    if tokenizer_hash(bundle.path) != manifest.tokenizer:
        raise InputError(
            f"bundle {bundle.id} has another tokenizer than {dataset}, which holds tokens and no texts: build that with "
            f"`labeller dataset --tokenizer-from {bundle.path}`, or ask texts of your own with --queries"
        )
    if not manifest.rows("heldout"):
        raise InputError(f"{dataset} has no held-out queries: raise --test-share of `labeller pairs`")
    return evaluate(bundle.encoder, dataset, manifest)


def term_pairs(warehouse: Warehouse, config: EvaluateConfig, bundle: Bundle) -> dict[str, Any]:
    """Figures across languages, where a generated warehouse has terms in two; else none."""
    truth = load_truth(warehouse)
    if truth is None or not truth.oracle or "vocabulary" in config.absent:
        return {}
    return across_languages(local_tables.vocabulary(warehouse), bundle)


def write(result: Result, evaluation: Evaluation, stem: Path) -> Path:
    """Print the tables, and leave them as ``stem`` with .json, .md and .png; returns the Markdown file."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_name(stem.name + ".json").write_text(
        json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    draw(evaluation, result.slices, stem.with_name(stem.name + ".png"))
    sections = [*evaluation_sections(result.slices, result.remarks, result.term_pairs)]
    sections += differences_section(result.differences, result.bundle, result.against)
    head = f"Bundle {result.bundle} asked {result.queries}, {result.ds}"
    foot = (
        "Means over queries, each with its 95% bootstrap interval (1,000 draws of queries), among all titles of the day. "
        "With typos: recall@10 of the same queries with one to three, and the share of recall@10 that is kept."
    )
    picture = f"![recall by rank and by slice]({stem.name}.png)"
    text = [f"# {head}", "", f"{foot} {result.hardware}; {result.seconds} s.", "", picture, "", *map(markdown, sections)]
    file = stem.with_name(stem.name + ".md")
    file.write_text("\n".join(text), encoding="utf-8")
    out = console()
    out.print(f"{head}\n{foot}", markup=False, soft_wrap=True)
    for section in sections:
        show(section, out)
    return file


def arg_parser() -> argparse.ArgumentParser:
    return settings.arg_parser(EvaluateConfig, "labeller evaluate", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), EvaluateConfig, run, argv)


if __name__ == "__main__":
    sys.exit(main())
