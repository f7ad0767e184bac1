"""Quality of the labels on real data: ours beside baselines that were tuned on the same validation part, in one report.

Every set's night is run in ROOT/<set> up to its calibrated bundle, unless it is there. Each baseline has six settings, of
which the validation part chooses one; the test part is measured once. Differences are paired bootstrap, 95%.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.quality.baselines import Family, System, bm25, dictionary, linear, tagger
from benchmarks.quality.measures import (
    Values,
    cut,
    f1,
    precision_and_recall,
    ranked_measures,
    texts_of,
)
from benchmarks.quality.ours import OurPaths, OurTerms, calibrated_bundle, paths_system, shots_of
from benchmarks.quality.report import Found, Row, write_report
from benchmarks.quality.tasks import TASKS, Task
from benchmarks.studies.data import minilm
from benchmarks.unleased import Unleased
from etl.config import JobConfig, arg_parser
from etl.job import run_job
from labeling.machine import hardware
from labeling.probability import DEFAULT_TEMPERATURE
from model.bundle import Bundle

log = logging.getLogger(__name__)

FOLDERS = {"taobao": "taobao_title_ner", "homedepot": "homedepot", "bigbasket": "bigbasket"}
SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Cuts of a baseline's further labels, as shares of the first one's score."""


class QualityConfig(Unleased, JobConfig):
    """Settings of the report."""

    data: str = "../shared/data"
    """Directory with the public sets, each in its folder."""

    ds: dt.date = dt.date(2024, 5, 7)
    """Day that the rows are dated, YYYY-MM-DD (UTC)."""

    sets: tuple[Literal["taobao", "homedepot", "bigbasket"], ...] = ("taobao", "homedepot", "bigbasket")
    """Which of them."""

    docs: str = "docs/quality"
    """Where the report goes."""


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(QualityConfig, "python -m benchmarks.quality", __doc__ or ""), QualityConfig, run, argv)


def run(config: QualityConfig) -> Mapping[str, Any]:
    """Measure each set and lay down its page; returns where they are."""
    for name in config.sets:
        data, root = Path(config.data).expanduser() / FOLDERS[name], Path(config.root).resolve() / name
        task = TASKS[name](str(data))
        bundle = calibrated_bundle(name, root, data)
        found = measured_paths(task, bundle, root) if name == "bigbasket" else measured_terms(task, bundle, root, data)
        write_report(task, found, Path(config.docs), f"bundle {bundle.id}, on {hardware()}")
    return {"sets": len(config.sets), "path": config.docs}


# ---------------------------------------------------------------- terms


def measured_terms(task: Task, bundle: Bundle, root: Path, data: Path) -> Found:
    """Ours and the baselines on a task of terms."""
    ours = OurTerms(bundle, root, task)
    weights = {weight: partial(ours.rank, lexical_weight=weight) for weight in dict.fromkeys((0.0, ours.lexical_weight))}
    rows = [
        Row("ours" if weight == 0 else f"ours, lexical weight {weight:g}", "", ranked_measures(task, task.test, system))
        for weight, system in weights.items()
    ]
    texts, cases = texts_of(task.test["whole"]), task.test["whole"]
    given = ours.label(texts)
    if task.name == "homedepot":
        rows[-1] = rows[-1].with_values(precision_and_recall([[label for label, _ in found] for found in given], cases))
    families = {"longest-match dictionary": dictionary(task), "BM25": bm25(task)}
    families |= {"TF-IDF + linear": linear(task)} if task.name == "homedepot" else {"CRF tagger": tagger(task, str(data))}
    for name, family in families.items():
        rows.append(_tuned(task, name, family))
    stated = [(probability, label in case.gold) for case, of in zip(cases, given, strict=True) for label, probability in of]
    return Found(rows, np.array(stated, dtype=np.float64))


def _tuned(task: Task, name: str, family: Family) -> Row:
    """A baseline with the settings that do best on the validation part."""
    tried: dict[str, tuple[float, System]] = {}
    for settings, make in family.items():
        system = make()
        values = ranked_measures(task, task.valid, system)
        tried[settings] = (float(np.mean([value.mean() for value in values.values()])), system)
        log.info("%s, %s: %.4f on the validation part", name, settings, tried[settings][0])
    settings = max(tried, key=lambda of: tried[of][0])
    system = tried[settings][1]
    row = Row(name, settings, ranked_measures(task, task.test, system))
    return row.with_values(_at_predicted_number(task, system)) if task.name == "homedepot" else row


def _at_predicted_number(task: Task, system: System) -> Values:
    """Precision and recall where further labels are cut as the validation part wants it."""
    valid, test = task.valid["whole"], task.test["whole"]
    tried = system(texts_of(valid))
    share = max(SHARES, key=lambda share: f1(precision_and_recall(cut(tried, share), valid)))
    return precision_and_recall(cut(system(texts_of(test)), share), test)


# ---------------------------------------------------------------- categories


def measured_paths(task: Task, bundle: Bundle, root: Path) -> Found:
    """Ours and the baselines on a task of category paths."""
    ours = paths_system(bundle, root, task)
    few_shot = paths_system(bundle, root, task, shots_of(bundle, root, task))
    found = ours(texts_of(task.test["whole"]))
    rows = [
        Row("ours, zero-shot", "", ranked_measures(task, task.test, ours)),
        Row("ours, few-shot", "", ranked_measures(task, task.test, few_shot)),
        Row("MiniLM-L6 off the shelf, in our tree", "", ranked_measures(task, task.test, _off_the_shelf(root, task))),
        _tuned(task, "BM25", bm25(task)),
        _tuned(task, "TF-IDF + linear", linear(task)),
    ]
    right = [label in case.gold for label, case in zip(found.labels[:, 0].tolist(), task.test["whole"], strict=True)]
    return Found(rows, np.array([found.scores[:, 0], right]).T)


def _off_the_shelf(root: Path, task: Task) -> System:
    from sentence_transformers import SentenceTransformer  # for this row alone, and slow to import

    model = SentenceTransformer(str(minilm()), device="cpu")
    encode = partial(model.encode, normalize_embeddings=True, show_progress_bar=False)
    paths = OurPaths(lambda texts: encode(list(texts)), root, task, DEFAULT_TEMPERATURE)
    return lambda texts: paths.rank(encode(list(texts)).astype(np.float64))


if __name__ == "__main__":
    sys.exit(main())
