"""The curated vocabulary as plain Python: every active term with all its forms, checked, and its version."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from etl.contracts import VOCABULARY
from etl.errors import InputError
from etl.text import normalise, words
from etl.warehouse import Warehouse

if TYPE_CHECKING:  # `label "TITLE"` answers without Spark, whose import alone takes it a second
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

MAX_FORM_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Term:
    """One active term; ``forms`` are its raw texts, the canonical one first, equal ones (normalised) once."""

    term_id: str
    term: str
    forms: tuple[str, ...]
    language: str | None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The active terms in the order of their ids; ``version`` is a hash of all of their content."""

    terms: tuple[Term, ...]
    version: str

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Vocabulary:
        """From rows of VOCABULARY; those whose status is neither null nor ``active`` are left out.

        Raises:
            InputError: a term without text or too long, a term_id that is null or occurs twice, no active term.
        """
        found = list(rows)
        problems = _problems(found)
        if problems:
            raise InputError.of(problems, heading="table vocabulary cannot be used:")
        terms = tuple(sorted((_term(row) for row in found if is_active(row)), key=lambda term: term.term_id))
        content = json.dumps([asdict(term) for term in terms], ensure_ascii=False)
        return cls(terms, hashlib.sha256(content.encode()).hexdigest()[:12])


def load_vocabulary(spark: SparkSession, warehouse: Warehouse) -> Vocabulary:
    """The vocabulary of a warehouse.

    Raises:
        InputError: the table is missing, does not fit its contract or cannot be used; all problems listed.
    """
    from etl.inputs import read_input

    return Vocabulary.of(read_input(spark, warehouse, VOCABULARY).toArrow().to_pylist())


def is_active(row: Mapping[str, Any]) -> bool:
    return row["status"] is None or str(row["status"]).strip().casefold() == "active"


def has_words(text: str | None) -> bool:
    """Whether anything of a raw text is left to encode."""
    return text is not None and bool(words(normalise(text)))


def _problems(rows: list[Mapping[str, Any]]) -> list[str]:
    problems = []
    for row in filter(is_active, rows):
        text = row["term"]
        if not has_words(text):
            problems.append(
                f"column term is {text!r} for term_id {row['term_id']!r} (expected at least one word): "
                "give it a text, or another status than active"
            )
        elif len(text) > MAX_FORM_CHARACTERS:
            problems.append(
                f"column term has {len(text)} characters for term_id {row['term_id']!r} (at most {MAX_FORM_CHARACTERS})"
            )
    for term_id, rows_ in Counter(row["term_id"] for row in rows).items():
        if term_id is None:
            problems.append(f"column term_id is null in {rows_} rows (expected an id in each)")
        elif rows_ > 1:
            problems.append(f"column term_id holds {term_id!r} {rows_} times (expected once): drop the other rows")
    if not problems and not any(map(is_active, rows)):
        problems.append(f"column status is active in none of {len(rows)} rows (expected >= 1)")
    return problems


def _term(row: Mapping[str, Any]) -> Term:
    synonyms = row["synonyms"] or ()
    usable = [text for text in synonyms if has_words(text) and len(text) <= MAX_FORM_CHARACTERS]
    if len(usable) < len(synonyms):
        log.warning("vocabulary: term_id %r: %d synonyms without a word or too long are left out",
                    row["term_id"], len(synonyms) - len(usable))  # fmt: skip
    forms = {normalise(text): text for text in reversed((row["term"], *usable))}
    ordered = [text for text in (row["term"], *usable) if forms.pop(normalise(text), None) is not None]
    return Term(str(row["term_id"]), row["term"], tuple(ordered), row["language"])
