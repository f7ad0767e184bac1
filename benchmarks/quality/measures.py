"""What is measured of a system on a task, case by case, so that two systems can be compared on the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.quality.baselines import Ranked, System
from benchmarks.quality.tasks import Case, Task
from model.metrics import Interval, intervals

Values = Mapping[str, np.ndarray]
"""Measure -> its value of each case, not a number where it is not defined [N]."""

Given = Sequence[Sequence[int]]
"""The labels that a system commits itself to, title by title."""


def texts_of(cases: Sequence[Case]) -> list[str]:
    return [case.text for case in cases]


def hits(found: Ranked, cases: Sequence[Case], k: int) -> np.ndarray:
    """1 where the wanted label, or any gold one, is among the first ``k`` [N]."""
    gold = [{case.wanted} if case.wanted >= 0 else case.gold for case in cases]
    return np.array([not of.isdisjoint(row[:k].tolist()) for row, of in zip(found.labels, gold, strict=True)], dtype=float)


def first_is_gold(found: Ranked, cases: Sequence[Case]) -> np.ndarray:
    """1 where the first label is any gold one of the title [N]."""
    return np.array([row[0] in case.gold for row, case in zip(found.labels.tolist(), cases, strict=True)], dtype=float)


def path_f1(found: Ranked, cases: Sequence[Case], task: Task) -> np.ndarray:
    """Hierarchical F1 of the first path, a path being the set of its nodes by their full paths (Kiritchenko et al. 2006)."""
    nodes = [_nodes(label) for label in task.labels]
    values = []
    for first, case in zip(found.labels[:, 0].tolist(), cases, strict=True):
        (gold,) = case.gold
        given = nodes[first] if first >= 0 else set()
        values.append(2 * len(given & nodes[gold]) / (len(given) + len(nodes[gold])))
    return np.array(values)


def _nodes(label: str) -> set[str]:
    names = label.split(" > ")
    return {" > ".join(names[: depth + 1]) for depth in range(len(names))}


def precision_and_recall(given: Given, cases: Sequence[Case]) -> Values:
    """Of each title's labels at the predicted number: the share of those judged that is right, and of gold that is given."""
    precision, recall = np.full(len(cases), np.nan), np.zeros(len(cases))
    for row, (labels, case) in enumerate(zip(given, cases, strict=True)):
        right, wrong = len(case.gold.intersection(labels)), len(case.wrong.intersection(labels))
        recall[row] = right / len(case.gold)
        if right + wrong:
            precision[row] = right / (right + wrong)
    return {"precision": precision, "recall": recall}


def ranked_measures(task: Task, part: Mapping[str, Sequence[Case]], system: System) -> Values:
    """The measures of a task that need no number of labels."""
    found = {view: system(texts_of(cases)) for view, cases in part.items()}
    if task.name == "taobao":
        return {
            "first term is gold": first_is_gold(found["whole"], part["whole"]),
            "hit@5, the term cut": hits(found["term cut"], part["term cut"], 5),
            "hit@5, all terms cut": hits(found["all cut"], part["all cut"], 5),
        }
    whole = found["whole"], part["whole"]
    if task.name == "bigbasket":
        return {"path accuracy": hits(*whole, 1), "hierarchical F1": path_f1(*whole, task), "hit@5": hits(*whole, 5)}
    return {"hit@1": hits(*whole, 1), "hit@5": hits(*whole, 5)}


def cut(found: Ranked, share: float) -> list[list[int]]:
    """The labels that score at least ``share`` of the first."""
    return [
        [label for label, score in zip(labels, scores, strict=True) if label >= 0 and score >= share * scores[0]]
        for labels, scores in zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    ]


def f1(values: Values) -> float:
    """Of mean precision and mean recall; what the cut of a baseline is chosen by."""
    precision, recall = (float(np.nanmean(values[name])) if len(values[name]) else 0.0 for name in ("precision", "recall"))
    return 2 * precision * recall / max(precision + recall, 1e-9)


def summary(values: Values, chosen: np.ndarray) -> dict[str, Interval]:
    """Mean and interval of each measure over the chosen cases [N] on which it is defined; none of one that is on no case."""
    defined = {name: value[chosen & ~np.isnan(value)] for name, value in values.items()}
    return {name: intervals({name: value})[name] for name, value in defined.items() if len(value)}


def gain(ours: np.ndarray, theirs: np.ndarray, chosen: np.ndarray) -> Interval:
    """Mean difference over the chosen cases on which both are defined, and its paired bootstrap interval."""
    both = chosen & ~np.isnan(ours) & ~np.isnan(theirs)
    return intervals({"gain": ours[both] - theirs[both]})["gain"] if both.any() else Interval(0.0, None, None)
