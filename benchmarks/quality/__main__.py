"""Quality of the labels on real data: ours beside baselines that were tuned on the same validation part, in one report.

Every night of a set is run in ROOT/<night> up to its calibrated bundle, unless it is there. Each baseline has six settings,
of which the validation part chooses one, or none to choose; the test part is measured once. Differences are paired
bootstrap, 95%.
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

from benchmarks.quality.baselines import Family, System, bm25, dictionary, linear, nearest, off_the_shelf, tagger
from benchmarks.quality.measures import (
    Values,
    cut,
    f1,
    precision_and_recall,
    ranked_measures,
    texts_of,
)
from benchmarks.quality.ours import (
    NIGHTS,
    Night,
    OurPaths,
    OurTerms,
    calibrated,
    is_there,
    paths_system,
    set_of,
    shots_of,
)
from benchmarks.quality.report import Found, Row, write_report
from benchmarks.quality.tasks import TASKS, Task
from benchmarks.unleased import Unleased
from etl.config import JobConfig, arg_parser
from etl.job import run_job
from labeling.machine import hardware
from labeling.probability import DEFAULT_TEMPERATURE

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

    without_minilm: bool = False
    """Train no MiniLM-L6 to stand beside ours: its rows are shown as not run, unless its night is there."""

    docs: str = "docs/quality"
    """Where the report goes."""


OFF_THE_SHELF, FINE_TUNED = "MiniLM-L6 off the shelf", "MiniLM-L6 fine-tuned with our trainer"


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(QualityConfig, "python -m benchmarks.quality", __doc__ or ""), QualityConfig, run, argv)


def run(config: QualityConfig) -> Mapping[str, Any]:
    """Measure each set and lay down its page; returns where they are."""
    for name in config.sets:
        data = Path(config.data).expanduser() / FOLDERS[name]
        task, nights = TASKS[name](str(data)), nights_of(name, config, data)
        found = measured_paths(task, nights) if name == "bigbasket" else measured_terms(task, nights, data)
        bundles = ", ".join(f"{night.bundle.id} ({of})" for of, night in nights.items())
        write_report(task, found, Path(config.docs), f"bundles {bundles}, on {hardware()}")
    return {"sets": len(config.sets), "path": config.docs}


def nights_of(name: str, config: QualityConfig, data: Path) -> dict[str, Night]:
    """The nights of a set, by what they are called, each run if it is not there."""
    nights = {}
    for night in (of for of in NIGHTS if set_of(of) == name):
        root = Path(config.root).resolve() / night
        if config.without_minilm and night.endswith("-minilm") and not is_there(root):
            log.info("%s: not run, as is asked", night)
            continue
        nights[night] = calibrated(night, root, data)
    return nights


# ---------------------------------------------------------------- terms


def measured_terms(task: Task, nights: Mapping[str, Night], data: Path) -> Found:
    """Ours and the baselines on a task of terms."""
    rows, given = _by_night(task, "ours", nights[task.name])
    shelf = nearest(task, off_the_shelf())
    rows.append(_with_number(task, Row(OFF_THE_SHELF, "", ranked_measures(task, task.test, shelf)), shelf))
    tuned = nights.get(f"{task.name}-minilm")
    rows += _by_night(task, FINE_TUNED, tuned)[0] if tuned is not None else [Row(FINE_TUNED, "not run", {})]
    families = {"longest-match dictionary": dictionary(task), "BM25": bm25(task)}
    families |= {"TF-IDF + linear": linear(task)} if task.name == "homedepot" else {"CRF tagger": tagger(task, str(data))}
    for name, family in families.items():
        rows.append(_tuned(task, name, family))
    cases = task.test["whole"]
    stated = [(probability, label in case.gold) for case, of in zip(cases, given, strict=True) for label, probability in of]
    return Found(rows, np.array(stated, dtype=np.float64))


def _by_night(task: Task, name: str, night: Night) -> tuple[list[Row], list[list[tuple[int, float]]]]:
    """A night's rows, without and with the lexical weight that calibration chose, and the (label, probability) it gives."""
    system = OurTerms(night, task)
    rows = [
        Row(
            name if weight == 0 else f"{name}, lexical weight {weight:g}",
            "",
            ranked_measures(task, task.test, partial(system.rank, lexical_weight=weight)),
        )
        for weight in dict.fromkeys((0.0, system.lexical_weight))
    ]
    cases = task.test["whole"]
    given = system.label(texts_of(cases))
    if task.name == "homedepot":
        rows[-1] = rows[-1].with_values(precision_and_recall([[label for label, _ in found] for found in given], cases))
    return rows, given


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
    return _with_number(task, Row(name, settings, ranked_measures(task, task.test, system)), system)


def _with_number(task: Task, row: Row, system: System) -> Row:
    """On Home Depot a system's row has what it does at the number of labels that it predicts, too."""
    return row.with_values(_at_predicted_number(task, system)) if task.name == "homedepot" else row


def _at_predicted_number(task: Task, system: System) -> Values:
    """Precision and recall where further labels are cut as the validation part wants it."""
    valid, test = task.valid["whole"], task.test["whole"]
    tried = system(texts_of(valid))
    share = max(SHARES, key=lambda share: f1(precision_and_recall(cut(tried, share), valid)))
    return precision_and_recall(cut(system(texts_of(test)), share), test)


# ---------------------------------------------------------------- categories


OURS_ON_PATHS = {"bigbasket": f"ours ({FINE_TUNED})", "bigbasket-bag": "ours from scratch"}
"""What the nights of BigBasket are called: its own is a MiniLM-L6 that was trained on."""


def measured_paths(task: Task, nights: Mapping[str, Night]) -> Found:
    """Ours and the baselines on a task of category paths."""
    rows = []
    for name, called in OURS_ON_PATHS.items():
        night = nights[name]
        for how, shots in (("zero-shot", None), ("few-shot", shots_of(night, task))):
            system = paths_system(night, task, shots)
            rows.append(Row(f"{called}, {how}", "", ranked_measures(task, task.test, system)))
    shelf = _in_our_tree(nights[task.name].root, task)
    rows.append(Row(f"{OFF_THE_SHELF}, in our tree", "", ranked_measures(task, task.test, shelf)))
    rows += [_tuned(task, "BM25", bm25(task)), _tuned(task, "TF-IDF + linear", linear(task))]
    found = paths_system(nights[task.name], task)(texts_of(task.test["whole"]))
    right = [label in case.gold for label, case in zip(found.labels[:, 0].tolist(), task.test["whole"], strict=True)]
    return Found(rows, np.array([found.scores[:, 0], right]).T)


def _in_our_tree(root: Path, task: Task) -> System:
    encode = off_the_shelf()
    paths = OurPaths(encode, root, task, DEFAULT_TEMPERATURE)
    return lambda texts: paths.rank(encode(texts))


if __name__ == "__main__":
    sys.exit(main())
