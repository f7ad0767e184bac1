"""What a user would pick instead of us to label titles: known methods by known libraries, with six settings or none."""

from __future__ import annotations

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import bm25s
import numpy as np
import pycrfsuite
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from benchmarks.quality.tasks import Task
from benchmarks.sets.taobao import Title, read_titles
from benchmarks.studies.data import minilm
from etl.text import is_cjk, normalise, words
from labeling.baselines import bm25_tokens
from labeling.lexical import ContainedTerms
from labeling.vectors import Encode

TOP = 5
"""Labels of a title that are ranked."""


class Ranked(NamedTuple):
    """Labels of N titles, best first, -1 where there are no more [N, TOP], and their scores."""

    labels: np.ndarray
    scores: np.ndarray


System = Callable[[Sequence[str]], Ranked]
"""Raw titles -> their labels."""

Family = Mapping[str, Callable[[], System]]
"""Settings, by what they are called -> how the system with these is made."""


def best_of(scores_NL: np.ndarray) -> Ranked:
    """The TOP labels of each row by score; those of score 0 or less are none. Ties by the smaller label."""
    order = np.argsort(-scores_NL, axis=1, kind="stable")[:, :TOP]
    scores = np.take_along_axis(scores_NL, order, axis=1)
    return Ranked(np.where(scores > 0, order, -1), scores)


# ---------------------------------------------------------------- by the words of the labels


def dictionary(task: Task) -> Family:
    """Labels that stand in the title; the longest first, or the one that is clicked most, or that stands last."""
    forms = [words(normalise(label)) for label in task.labels]
    contained, clicks = (
        ContainedTerms(forms, range(len(forms))),
        np.bincount([label for _, label in task.learnt], minlength=len(forms)),
    )
    lengths = np.array([len(label) for label in task.labels])

    def last(text: str, label: int) -> int:
        return text.rfind(normalise(task.labels[label]))

    orders: dict[str, Callable[[str, int], tuple[float, ...]]] = {
        "longest": lambda _, label: (lengths[label], -label),
        "longest, then most clicked": lambda _, label: (lengths[label], clicks[label]),
        "longest, then last": lambda text, label: (lengths[label], last(text, label)),
        "most clicked": lambda _, label: (clicks[label], lengths[label]),
        "last": lambda text, label: (last(text, label), lengths[label]),
        "last of those clicked": lambda text, label: (clicks[label] > 0, last(text, label), lengths[label]),
    }

    def system(order: Callable[[str, int], tuple[float, ...]]) -> System:
        def rank(texts: Sequence[str]) -> Ranked:
            labels = np.full((len(texts), TOP), -1)
            for row, text in enumerate(map(normalise, texts)):
                found = sorted(contained.of(words(text)), key=lambda label: order(text, label), reverse=True)[:TOP]
                labels[row, : len(found)] = found
            return Ranked(labels, (labels >= 0).astype(np.float64))

        return rank

    return {name: partial(system, order) for name, order in orders.items()}


def bm25(task: Task) -> Family:
    """BM25 with the title as the query, over the labels' words, or over these and all titles that were clicked for them."""
    titles: defaultdict[int, list[str]] = defaultdict(list)
    for title, label in task.learnt:
        titles[label] += bm25_tokens(title)
    names = [bm25_tokens(label) or ["?"] for label in task.labels]
    documents = {"names": names, "names and titles": [name + titles[label] for label, name in enumerate(names)]}

    def system(of: str, k1: float, b: float) -> System:
        index = bm25s.BM25(method="lucene", k1=k1, b=b)
        index.index(documents[of], show_progress=False)

        def rank(texts: Sequence[str]) -> Ranked:
            none = np.zeros(len(names), dtype=np.float32)
            asked = map(bm25_tokens, texts)
            found = [best_of((index.get_scores(query) if query else none)[None]) for query in asked]
            return Ranked(np.concatenate([r.labels for r in found]), np.concatenate([r.scores for r in found]))

        return rank

    grid = itertools.product(documents, ((0.9, 0.4), (1.2, 0.75), (2.0, 0.9)))
    return {f"{of}, k1 {k1}, b {b}": partial(system, of, k1, b) for of, (k1, b) in grid}


# ---------------------------------------------------------------- by their vectors


def off_the_shelf() -> Encode:
    """MiniLM-L6 as it comes, by sentence-transformers: texts -> unit vectors, float64 [N, 384]."""
    from sentence_transformers import SentenceTransformer  # for this alone, and slow to import

    model = SentenceTransformer(str(minilm()), device="cpu")

    def encode(texts: Sequence[str]) -> np.ndarray:
        return model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False).astype(np.float64)

    return encode


def nearest(task: Task, encode: Encode) -> System:
    """The labels that are nearest to the title by cosine; of clicks it knows nothing."""
    label_LD = encode(task.labels)
    return lambda texts: best_of(encode(texts) @ label_LD.T)


# ---------------------------------------------------------------- supervised


def linear(task: Task) -> Family:
    """TF-IDF and a linear SVM, one against the rest."""

    def system(longest: int, c: float) -> System:
        vectors = TfidfVectorizer(
            tokenizer=bm25_tokens, token_pattern=None, ngram_range=(1, longest), sublinear_tf=True, min_df=2
        )
        model = make_pipeline(vectors, LinearSVC(C=c))
        model.fit([title for title, _ in task.learnt], [label for _, label in task.learnt])
        classes = model[-1].classes_

        def rank(texts: Sequence[str]) -> Ranked:
            # Of decisions, which may be negative, no share of the first can be cut; so they are squashed first.
            found = best_of(expit(np.atleast_2d(model.decision_function(list(texts)))))
            return Ranked(classes[found.labels], found.scores)

        return rank

    grid = itertools.product((1, 2), (0.1, 0.3, 1.0))
    return {f"{n}-grams, C {c:g}": partial(system, n, c) for n, c in grid}


def tagger(task: Task, directory: str) -> Family:
    """A linear-chain CRF over characters (Lafferty et al. 2001) that marks the terms in a title, by CRFsuite."""
    number = {label: n for n, label in enumerate(task.labels)}
    train = read_titles(directory, "train")

    def system(c1: float, c2: float) -> System:
        trainer = pycrfsuite.Trainer(verbose=False, params={"c1": c1, "c2": c2, "max_iterations": 100})
        for title in train:
            trainer.append(_characters(title.text), _tags(title))
        with tempfile.NamedTemporaryFile() as file:
            trainer.train(file.name)
            model = pycrfsuite.Tagger()
            model.open(file.name)  # open_inmemory would not keep the bytes alive

        def rank(texts: Sequence[str]) -> Ranked:
            labels, scores = np.full((len(texts), TOP), -1), np.zeros((len(texts), TOP))
            for row, text in enumerate(texts):
                if not text:
                    continue
                tags = model.tag(_characters(text))
                marked = [(model.marginal("B", start), text[start:end]) for start, end in _spans(tags)]
                known = dict.fromkeys(number[span] for _, span in sorted(marked, reverse=True) if span in number)
                labels[row, : len(known)] = list(known)[:TOP]
                scores[row, : len(known)] = 1.0
            return Ranked(labels, scores)

        return rank

    grid = itertools.product((0.0, 0.1, 0.3), (0.01, 0.1))
    return {f"c1 {c1:g}, c2 {c2:g}": partial(system, c1, c2) for c1, c2 in grid}


def _characters(text: str) -> list[list[str]]:
    """Features of each character: it and its neighbours, alone and in pairs, and what kind it is."""
    at = dict(enumerate(text.lower(), start=2))

    def look(place: int) -> str:
        return at.get(place, "_")

    found = []
    for i in range(2, len(text) + 2):
        alone = [f"{d}={look(i + d)}" for d in (-2, -1, 0, 1, 2)]
        pairs = [f"{d},{d + 1}={look(i + d)}{look(i + d + 1)}" for d in (-2, -1, 0, 1)]
        found.append([*alone, *pairs, f"kind={'c' if is_cjk(look(i)) else 'd' if look(i).isdigit() else 'o'}"])
    return found


def _tags(title: Title) -> list[str]:
    """B and I on every occurrence of a term, the longest terms first; O elsewhere."""
    tags = ["O"] * len(title.text)
    for term in sorted(title.terms, key=len, reverse=True):
        start = title.text.find(term)
        while start >= 0:
            if all(tag == "O" for tag in tags[start : start + len(term)]):
                tags[start : start + len(term)] = ["B", *["I"] * (len(term) - 1)]
            start = title.text.find(term, start + 1)
    return tags


def _spans(tags: Sequence[str]) -> Iterator[tuple[int, int]]:
    starts = [i for i, tag in enumerate(tags) if tag == "B"]
    for start in starts:
        end = start + 1
        while end < len(tags) and tags[end] == "I":
            end += 1
        yield start, end
