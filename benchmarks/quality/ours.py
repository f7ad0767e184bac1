"""Our labels of a public set: its nights up to the calibrated bundle, and the two systems that a night makes."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.quality.baselines import TOP, Ranked, System, best_of
from benchmarks.quality.tasks import Task
from benchmarks.studies.data import minilm
from etl.errors import InputError
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.categories import CategoryTree
from labeling.few_shot import Shots
from labeling.probability import Calibration
from labeling.product_text import product_text
from labeling.scoring import term_index
from labeling.term_prototypes import TermPrototypes
from labeling.terms import ItemTerms, TermLabeller, TermSettings
from labeling.vectors import unit
from model.bundle import Bundle, candidate, load_bundle

log = logging.getLogger(__name__)

DS = "2024-05-07"

PIECES = ("--tokenizer", "wordpiece", "--tokenizer-from", str(minilm()))
BAG = ("--preset", "bag", "--dim", "512", "--query-word-dropout", "1", "--ranks", "1")
STARTED = (
    *("--preset", "published", "--init-from", str(minilm()), "--epochs", "1", "--lr", "5e-5", "--tau", "0.05"),
    *("--batch", "256", "--crops", "0.5", "--ranks", "1"),
)
"""MiniLM-L6 trained on as in the study `start`."""
LEXICAL = ("--lexical-weights", "0.02", "0.05", "0.1", "0.2")

NIGHTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "taobao": {
        "warehouse": (),
        "pairs": ("--test-item-share", "0.05"),
        "dataset": (),
        "train": BAG,
        "calibrate": LEXICAL,
    },
    "taobao-minilm": {
        "warehouse": (),
        "pairs": ("--test-item-share", "0.05"),
        "dataset": PIECES,
        "train": (*STARTED, "--query-word-dropout", "1"),
        "calibrate": LEXICAL,
    },
    "homedepot": {
        "warehouse": ("--hold-out-products",),
        "pairs": ("--test-item-share", "0.02"),
        "dataset": (),
        "train": (),  # what its warehouse.toml says
        "calibrate": LEXICAL,
    },
    "homedepot-minilm": {
        "warehouse": ("--hold-out-products",),
        "pairs": ("--test-item-share", "0.02"),
        "dataset": PIECES,
        # Width and feature dropout of its warehouse.toml are the bag's: MiniLM is 384 wide and has no letter n-grams.
        "train": (*STARTED, "--dim", "384", "--feature-dropout", "0", "--query-word-dropout", "0"),
        "calibrate": LEXICAL,
    },
    "bigbasket": {
        "warehouse": (),
        "pairs": ("--test-item-share", "0.05"),
        "dataset": PIECES,
        "train": (
            *("--preset", "published", "--init-from", str(minilm()), "--epochs", "4", "--lr", "1e-4", "--tau", "0.02"),
            *("--batch", "64", "--crops", "0.25", "--query-word-dropout", "0"),
        ),
        "calibrate": (),
    },
    "bigbasket-bag": {
        "warehouse": (),
        "pairs": ("--test-item-share", "0.05"),
        "dataset": (),
        "train": BAG,  # Taobao's
        "calibrate": (),
    },
}
"""The settings of each stage, by the set and, after a dash, what differs from its own night.

Those of a set's own training were chosen on its validation part; the others were taken over, see docs/quality/README.md.
"""


class Night(NamedTuple):
    """A night up to calibration: what it made, and the warehouse that it was run on."""

    bundle: Bundle
    root: Path


def is_there(root: Path) -> bool:
    """Whether the warehouse of a night has its calibrated bundle."""
    found = candidate(Warehouse.at(str(root))) if root.is_dir() else None
    return found is not None and (found / "calibration.json").is_file()


def calibrated(name: str, root: Path, data: Path) -> Night:
    """The night ``name`` in ``root``, which is run if its calibrated bundle is not there.

    Raises:
        InputError: a stage failed.
    """
    if is_there(root):
        log.info("%s: the night in %s is there already", name, root)
    else:
        for stage, settings in NIGHTS[name].items():
            command = ["-m", "labeling.cli", stage, "--ds", DS]
            if stage == "warehouse":
                command = ["-m", f"benchmarks.sets.{set_of(name)}", stage, "--data", str(data)]
            command = [sys.executable, *command, "--root", str(root), *settings]
            if subprocess.run(command, check=False).returncode:
                raise InputError(f"{name}: {' '.join(command)} failed: see what it said above")
    found = candidate(Warehouse.at(str(root)))
    assert found is not None, "training makes a candidate"
    return Night(load_bundle(found), root)


def set_of(night: str) -> str:
    """The set that a night is of."""
    return night.partition("-")[0]


EXAMPLES, PRIOR = 64, 16.0
"""Those of `labeller predict` for few-shot categories."""

SETTINGS = TermSettings(min_probability=0.3, max_gap=0.15, max_terms=5, max_similarity=0.9)
"""Those of `labeller predict`."""


class OurTerms:
    """Terms of the warehouse's vocabulary, by their position in the labels of a task."""

    def __init__(self, night: Night, task: Task) -> None:
        bundle, root = night
        vocabulary = local_tables.vocabulary(Warehouse.at(str(root)))
        number = {label: n for n, label in enumerate(task.labels)}
        self._positions = np.array([number[term.term] for term in vocabulary.terms])
        self._number = {term.term_id: number[term.term] for term in vocabulary.terms}
        self._bundle = bundle
        self._calibration = Calibration.of(bundle.calibration, bundle.calibration_id)
        self._labeller = TermLabeller(term_index(bundle, vocabulary, TermPrototypes.of(bundle)))

    @property
    def lexical_weight(self) -> float:
        """What calibration chose."""
        return self._calibration.lexical_weight

    def rank(self, texts: Sequence[str], lexical_weight: float) -> Ranked:
        """The nearest terms."""
        normal, vectors = self._encoded(texts)
        (found,) = self._labeller.search.candidates(vectors, normal, [lexical_weight])
        labels = np.array([[self._positions[c.term] for c in row[:TOP]] for row in found])
        return Ranked(labels, np.array([[c.score for c in row[:TOP]] for row in found]))

    def label(self, texts: Sequence[str]) -> list[list[tuple[int, float]]]:
        """The terms that the night would give, (label, probability), best first."""
        normal, vectors = self._encoded(texts)
        found: list[ItemTerms] = self._labeller.label(vectors, normal, self._calibration, SETTINGS)
        return [[(self._number[term.term_id], term.probability) for term in item.terms] for item in found]

    def _encoded(self, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
        return encoded(self._bundle, texts)


class OurPaths:
    """Paths of the warehouse's tree, by their position in the labels of a task; always down to a leaf."""

    def __init__(self, encode: Any, root: Path, task: Task, temperature: float, shots: Shots | None = None) -> None:
        tree = CategoryTree.build(local_tables.taxonomy(Warehouse.at(str(root))), encode, shots)
        number = {label: n for n, label in enumerate(task.labels)}
        names = [" > ".join(tree.names[node] for node in tree.way(int(leaf))) for leaf in tree.leaves]
        self._labels = np.array([number[name] for name in names])
        self._tree, self._temperature = tree, temperature

    def rank(self, vectors_ND: np.ndarray) -> Ranked:
        """The most probable paths and their probabilities."""
        paths_MN = self._tree.log_paths(self._tree.scores(vectors_ND), self._temperature)
        found = best_of(np.exp(paths_MN[self._tree.leaves].T))
        return Ranked(self._labels[found.labels], found.scores)


def encoded(bundle: Bundle, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Normalised product texts, and float64 unit vectors by way of float16, as the night has them."""
    normal = [product_text(text, bundle.tokenizer.normalise).text or "" for text in texts]
    return normal, unit(bundle.encode(normal, side="title").astype(np.float16).astype(np.float64))


def paths_system(night: Night, task: Task, shots: Shots | None = None) -> System:
    """Our category paths; zero-shot, or with examples."""
    bundle, root = night
    calibration = Calibration.of(bundle.calibration, bundle.calibration_id)
    paths = OurPaths(partial(bundle.encode, side="query"), root, task, calibration.temperature, shots)
    return lambda texts: paths.rank(encoded(bundle, texts)[1])


def shots_of(night: Night, task: Task) -> Shots:
    """Titles that may be learnt from as examples of their paths, at most EXAMPLES of each, as the nightly option has it."""
    bundle, root = night
    taxonomy = local_tables.taxonomy(Warehouse.at(str(root)))
    ids = {" > ".join(node.name for node in taxonomy.path(id_)): id_ for id_ in taxonomy.nodes}
    drawn: defaultdict[int, list[str]] = defaultdict(list)
    for title, label in task.learnt:
        if len(drawn[label]) < EXAMPLES:
            drawn[label].append(title)
    return Shots(PRIOR, {ids[task.labels[n]]: encoded(bundle, titles)[1].sum(axis=0) for n, titles in drawn.items()})
