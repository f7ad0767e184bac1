"""Vectors to labels: one scorer for the nightly job's workers and for a single title on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa

from etl.taxonomy import Taxonomy
from etl.vocabulary import Vocabulary
from labeling.abstention import Readable
from labeling.categories import CategoryLabel, CategoryTree, no_category
from labeling.few_shot import Shots
from labeling.probability import Calibration
from labeling.term_prototypes import TermPrototypes
from labeling.term_search import TermIndex
from labeling.terms import ItemTerms, TermLabeller, TermSettings
from labeling.vectors import unit
from model.bundle import Bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringSettings(TermSettings):
    """The cuts for terms, the one for going on down the category tree, and from how many letters on a text has labels."""

    min_step_probability: float
    min_letters: int


class ItemLabels(NamedTuple):
    """What one item gets; None for a half that the warehouse lacks."""

    terms: ItemTerms | None
    category: CategoryLabel | None


@dataclass(frozen=True, slots=True)
class Scorer:
    """All that turns vectors into labels, as plain arrays: built on the driver, shipped to every worker."""

    terms: TermIndex | None
    tree: CategoryTree | None
    calibration: Calibration
    readable: Readable
    settings: ScoringSettings

    @classmethod
    def build(
        cls,
        bundle: Bundle,
        vocabulary: Vocabulary | None,
        taxonomy: Taxonomy | None,
        settings: ScoringSettings,
        shots: Shots | None = None,
    ) -> Scorer:
        """Encode the forms of the vocabulary and the prompts of the tree with the bundle; ``shots`` move the latter.

        Raises:
            InputError: the bundle makes no vector of one of them.
        """
        encode = partial(bundle.encode, side="query")
        return cls(
            terms=None if vocabulary is None else term_index(bundle, vocabulary, TermPrototypes.of(bundle)),
            tree=None if taxonomy is None else CategoryTree.build(taxonomy, encode, shots),
            calibration=Calibration.of(bundle.calibration, bundle.calibration_id),
            readable=Readable.of(bundle, settings.min_letters),
            settings=settings,
        )

    def labeller(self) -> TermLabeller | None:
        """The term index, ready for search; build it once in a process."""
        return None if self.terms is None else TermLabeller(self.terms)

    def label(
        self,
        labeller: TermLabeller | None,
        vectors_ND: np.ndarray,
        texts: Sequence[str],
        clicked: Sequence[Mapping[int, int]] | None = None,
        example_of: Sequence[str | None] = (),
    ) -> list[ItemLabels]:
        """Labels of items with a vector.

        Args:
            labeller: What :meth:`labeller` returned.
            vectors_ND: Vectors of any float type, about unit length.
            texts: Their normalised product texts.
            clicked: By how many users the terms (positions) were typed that led to each in training; None: nobody knows.
            example_of: See :meth:`labeling.categories.CategoryTree.label`.
        """
        # float64 throughout: the rounded scores then do not depend on how many items share a matrix product.
        unit_ND = unit(np.asarray(vectors_ND, dtype=np.float64))
        terms: list[ItemTerms | None] = [None] * len(texts)
        if labeller is not None:
            terms = list(labeller.label(unit_ND, texts, self.calibration, self.settings, clicked))
        categories: list[CategoryLabel | None] = [None] * len(texts)
        if self.tree is not None:
            least = self.settings.min_step_probability
            categories = list(self.tree.label(unit_ND, self.calibration.temperature, least, example_of))
        reasons = map(self.readable.reason, texts)
        return [
            ItemLabels(found, category) if reason is None else self.without_labels(reason)
            for reason, found, category in zip(reasons, terms, categories, strict=True)
        ]

    def without_labels(self, reason: str) -> ItemLabels:
        """What an item gets that cannot be encoded, or whose text says nothing."""
        return ItemLabels(
            None if self.terms is None else ItemTerms([], reason, None), None if self.tree is None else no_category(reason)
        )


def term_index(bundle: Bundle, vocabulary: Vocabulary, prototypes: TermPrototypes | None = None) -> TermIndex:
    """The vocabulary as the bundle encodes it, with the forms moved that ``prototypes`` move.

    Raises:
        InputError: the bundle makes no vector of a form.
    """
    encode = partial(bundle.encode, side="query")
    return TermIndex.build(vocabulary, encode, bundle.tokenizer.normalise, prototypes)


_TERM = pa.struct(
    [
        ("rank", pa.int32()),
        ("term_id", pa.string()),
        ("term", pa.string()),
        ("score", pa.float64()),
        ("probability", pa.float64()),
        ("margin", pa.float64()),
        ("cosine", pa.float64()),
        ("runner_up_id", pa.string()),
        ("runner_up", pa.string()),
        ("lexical_hit", pa.bool_()),
        ("reason", pa.string()),
    ]
)
_CATEGORY = pa.struct(
    [
        ("category_id", pa.string()),
        ("path_ids", pa.list_(pa.string())),
        ("path", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float64())),
        ("probability", pa.float64()),
        ("stopped", pa.string()),
    ]
)
_ARROW_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("evidence", pa.list_(pa.string())),
        ("terms", pa.list_(_TERM)),
        ("category", _CATEGORY),
    ]
)

SCORED_SCHEMA = """item_id string, evidence array<string>,
    terms array<struct<rank: int, term_id: string, term: string, score: double, probability: double, margin: double,
                       cosine: double, runner_up_id: string, runner_up: string, lexical_hit: boolean, reason: string>>,
    category struct<category_id: string, path_ids: array<string>, path: array<string>, probabilities: array<double>,
                    probability: double, stopped: string>"""


def score_items(batches: Iterable[pa.RecordBatch], scorer: Scorer) -> Iterator[pa.RecordBatch]:
    """Rows (item_id, text, vector, reason, evidence, clicked, perhaps example_of) -> rows of SCORED_SCHEMA, one for one."""
    faiss.omp_set_num_threads(1)  # Spark runs one worker per core
    labeller = scorer.labeller()
    for batch in batches:
        labels = _label_batch(batch, scorer, labeller)
        columns = (
            batch.column("item_id"),
            batch.column("evidence"),
            pa.array([_term_rows(found.terms) for found in labels], _ARROW_SCHEMA.field("terms").type),
            pa.array([_category_row(found.category) for found in labels], _CATEGORY),
        )
        yield pa.RecordBatch.from_arrays(
            [column.cast(field.type) for column, field in zip(columns, _ARROW_SCHEMA, strict=True)], schema=_ARROW_SCHEMA
        )


def _label_batch(batch: pa.RecordBatch, scorer: Scorer, labeller: TermLabeller | None) -> list[ItemLabels]:
    vectors = batch.column("vector").to_pylist()
    texts = batch.column("text").to_pylist()
    encoded = [i for i, vector in enumerate(vectors) if vector is not None]
    found: dict[int, ItemLabels] = {}
    if encoded:
        matrix = np.frombuffer(b"".join(vectors[i] for i in encoded), dtype="<f2").reshape(len(encoded), -1)
        clicked = batch.column("clicked").to_pylist()
        given = batch.column("example_of").to_pylist() if "example_of" in batch.schema.names else []
        labels = scorer.label(
            labeller,
            matrix,
            [texts[i] for i in encoded],
            [dict(clicked[i]) for i in encoded],
            [given[i] for i in encoded] if given else (),
        )
        found = dict(zip(encoded, labels, strict=True))
    reasons = batch.column("reason").to_pylist()
    return [found[i] if i in found else scorer.without_labels(reason) for i, reason in enumerate(reasons)]


def _term_rows(found: ItemTerms | None) -> list[dict[str, Any]]:
    if found is None:
        return []
    second = {} if found.runner_up is None else {"runner_up_id": found.runner_up.term_id, "runner_up": found.runner_up.term}
    if found.reason is not None:
        return [{"rank": 0, "reason": found.reason} | second]
    return [term._asdict() | second for term in found.terms]


def _category_row(label: CategoryLabel | None) -> dict[str, Any] | None:
    return None if label is None else label._asdict() | {"probability": label.probability}
