"""Retrieval of unseen Home Depot queries by the promoted bundle, beside BM25 measured in the same run."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from benchmarks.curves_figure import draw_one
from benchmarks.sets.adapter import adapted_warehouse
from benchmarks.sets.homedepot_judgements import (
    CLICKED,
    SET,
    HomeDepotConfig,
    Judgement,
    read_judgements,
    titles_by_product,
    unseen_queries,
)
from etl.bert_tokenizer import bert_tokenizer
from etl.errors import InputError
from etl.text import normalise
from etl.tokenizer_spec import TokenizerSpec
from etl.typos import misspelt
from labeling.baselines import Bm25, bm25_tokens
from labeling.machine import hardware
from labeling.terminal import console
from model.bundle import champion, load_bundle
from model.encoder import Encoder
from model.inference import embed
from model.metrics import DEPTH, intervals, measure
from model.packing import tokenised
from model.pretrained import Pretrained

log = logging.getLogger(__name__)

MEASURES = ("R@10", "R@100", "MRR@10")
MEASURED = ("recall@10", "recall@100", "mrr@10")  # the same, as model.metrics calls them
TYPED = "R@10, typos"
BUNDLE = "this bundle"
PROTOTYPE = (0.438, 0.810, 0.455)  # bag of hashed words and letter n-grams with title crops, five minutes on one core
BM25_WEIGHT = 0.6  # what validation queries chose, see benchmarks.fusion
FUSED = f"{BUNDLE} + BM25, plural s cut ({BM25_WEIGHT:g})"
MINILM = "MiniLM-L6 off the shelf"
BATCH = 64  # queries whose scores against all titles are held at once: 64 x 54,667 float32 are 14 MB

Encoding = Callable[[Sequence[str], Literal["query", "title"]], np.ndarray]
"""Raw texts -> float32 [N, D] unit vectors."""


class EvaluateConfig(HomeDepotConfig):
    """Settings of the evaluation."""

    minilm: bool = False
    """Measure MiniLM-L6 as it comes, too: some minutes for all titles."""


def evaluate(config: EvaluateConfig) -> Mapping[str, Any]:
    """Measure the promoted bundle on the unseen queries against all titles, beside BM25."""
    warehouse = adapted_warehouse(config.root, SET)
    path = champion(warehouse)
    if path is None:
        raise InputError(f"{warehouse.root} has no promoted bundle: run `labeller train` and `labeller promote` first")
    judgements = read_judgements(config.data)
    titles, relevant = titles_by_product(judgements), relevant_products(judgements)
    started = time.monotonic()
    bundle = load_bundle(path)
    encoders: dict[str, Encoding] = {BUNDLE: bundle.encode} | ({MINILM: off_the_shelf()} if config.minilm else {})
    asked, catalogue = list(relevant), list(titles.values())
    vectors = {name: (encode(asked, "query"), encode(catalogue, "title")) for name, encode in encoders.items()}
    log.info("encoded %d queries and %d titles in %.0f s", len(relevant), len(titles), time.monotonic() - started)
    answers = answer(vectors, relevant, titles)
    figures = means(answers)
    figures["prototype (published figure)"] = dict(zip(MEASURES, PROTOTYPE, strict=True))
    typos = [misspelt(normalise(query)) for query in relevant]
    misread = {name: (encode(typos, "query"), vectors[name][1]) for name, encode in encoders.items()}
    with_typos = means(answer(misread, relevant, titles, asked=typos))
    result = {
        "task": f"{len(relevant)} unseen queries with a product judged >= {CLICKED}, against all {len(titles)} titles",
        "measure": "R@k: share of a query's relevant products among the first k, mean over queries; ties by product",
        "bundle": bundle.id,
        "hardware": hardware(),
        "seconds": round(time.monotonic() - started, 1),
        "figures": figures,
        "intervals": {name: dict(zip(MEASURES, map(list, bounds(found)), strict=True)) for name, found in answers.items()},
        "gains": {f"{name} less {part}": gain for name, part, gain in gains(answers)},
        "typos": {name: found | {"kept": _kept(found, figures[name])} for name, found in with_typos.items()},
    }
    target = write_result(warehouse.files / "reports" / SET, result)
    if curve := bundle.metrics.get("curve"):  # an untrained bundle has none
        draw_one(curve, target.with_name("loss.png"), f"Home Depot, bundle {bundle.id}")
    return {"queries": len(relevant), "titles": len(titles), "bundle": bundle.id, "path": target}


def off_the_shelf() -> Encoding:
    """MiniLM-L6 as it comes, in our encoder and behind our text normaliser."""
    from benchmarks.studies.data import minilm  # the studies are built on this module

    pretrained = Pretrained.read(minilm())
    encoder = Encoder(pretrained.config).eval()
    pretrained.load_into(encoder)
    spec = TokenizerSpec(kind="wordpiece", rows=pretrained.config.rows, normaliser=normalise.hash)
    tokenizer = bert_tokenizer(minilm(), spec)
    return lambda texts, side: embed(encoder, *tokenised(tokenizer, texts, side))


def compare(
    query_BD: np.ndarray, title_ND: np.ndarray, relevant: Mapping[str, set[str]], titles: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """MEASURES of vectors, of BM25 and of both together, by system; see :func:`answer`."""
    return means(answer({BUNDLE: (query_BD, title_ND)}, relevant, titles))


def means(answers: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """MEASURES by system, from what :func:`answer` returns."""
    return {name: dict(zip(MEASURES, found.mean(axis=0).round(4).tolist(), strict=True)) for name, found in answers.items()}


def gains(answers: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str, list[float | None]]]:
    """Fused system, a part of it, and how far its R@10 is above that part's on the same queries: mean, 95% interval."""
    lexical = [name for name in answers if name.startswith("BM25")]
    for fused in (name for name in answers if name.startswith(f"{BUNDLE} + ")):
        for part in (BUNDLE, max((name for name in lexical if name in fused), key=len)):
            less = answers[fused][:, 0] - answers[part][:, 0]
            yield fused, part, list(intervals({"R@10": less})["R@10"])


def bounds(values: np.ndarray) -> list[tuple[float, float]]:
    """95% bootstrap intervals of the MEASURES of a system, from its values [Q, 3]."""
    found = intervals(dict(zip(MEASURES, values.T, strict=True)))
    return [(of.low or 0.0, of.high or 0.0) for of in found.values()]


def answer(
    vectors: Mapping[str, tuple[np.ndarray, np.ndarray]],
    relevant: Mapping[str, set[str]],
    titles: Mapping[str, str],
    asked: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """MEASURES of each query, [Q, 3], by system.

    Args:
        vectors: Encoder -> unit vectors of the queries and of ``titles``; that of ``BUNDLE`` is fused with BM25.
        relevant: Query -> its relevant products.
        titles: Product -> title, of the whole catalogue.
        asked: What is asked instead of each query of ``relevant``, and what the vectors are of.
    """
    texts = list(asked or relevant)
    plain = bm25_scores(texts, list(titles.values()), lambda text: re.findall(r"\w+", text.lower()))
    singular = bm25_scores(texts, list(titles.values()), bm25_tokens)
    values: dict[str, list[np.ndarray]] = {}
    gold = [np.isin(list(titles), list(products)) for products in relevant.values()]
    for start in range(0, len(relevant), BATCH):
        batch = slice(start, start + BATCH)
        cosines = {name: query_QD[batch] @ title_ND.T for name, (query_QD, title_ND) in vectors.items()}
        found = dict(systems(cosines[BUNDLE], plain(batch), singular(batch))) | cosines
        for name, scores_BN in found.items():
            for scores, wanted in zip(scores_BN, gold[batch], strict=True):
                values.setdefault(name, []).append(measures(scores, wanted))
    return {name: np.array(each) for name, each in values.items()}


def relevant_products(judgements: Sequence[Judgement]) -> dict[str, set[str]]:
    """Unseen query -> its relevant products, in order; queries without any are left out."""
    unseen = unseen_queries(judgements)
    relevant: dict[str, set[str]] = {}
    for j in judgements:
        if j.query in unseen and j.relevance >= CLICKED:
            relevant.setdefault(j.query, set()).add(j.product)
    return dict(sorted(relevant.items()))


def bm25_scores(
    queries: Sequence[str], titles: Sequence[str], tokens: Callable[[str], list[str]]
) -> Callable[[slice], np.ndarray]:
    """A function from a slice of the queries to their BM25 scores against all titles, float32 [B, N]."""
    index = Bm25([tokens(title) for title in titles])
    return lambda batch: np.stack([index.scores(tokens(query)) for query in queries[batch]])


def systems(cosine_BN: np.ndarray, plain_BN: np.ndarray, singular_BN: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Each system's name and scores, [B, N]."""
    yield "BM25", plain_BN
    yield "BM25, plural s cut", singular_BN
    yield BUNDLE, cosine_BN
    yield f"{BUNDLE} + BM25 ({BM25_WEIGHT:g})", fuse(cosine_BN, plain_BN)
    yield FUSED, fuse(cosine_BN, singular_BN)


def fuse(cosine_BN: np.ndarray, bm25_BN: np.ndarray, weight: float = BM25_WEIGHT) -> np.ndarray:
    """Weighted sum of both, each scaled to its maximum for the query; ``weight`` is BM25's."""
    return (1 - weight) * _scaled(cosine_BN) + weight * _scaled(bm25_BN)


def measures(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """R@10, R@100 and MRR@10 of one query from its scores [N] and which titles are relevant [N]; ties by index."""
    kth = np.partition(scores, -min(DEPTH, len(scores)))[-min(DEPTH, len(scores))]
    candidates = np.flatnonzero(scores >= kth)  # all that tie with the last one
    order = candidates[np.lexsort((candidates, -scores[candidates]))][:DEPTH]
    found = measure(wanted[order][None], np.array([wanted.sum()]))
    return np.array([found[name][0] for name in MEASURED])


def write_result(directory: Path, result: Mapping[str, Any]) -> Path:
    """Print the figures and write them as JSON and Markdown; returns the Markdown file."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    columns = ("system", *MEASURES, "R@10 95%", TYPED, "kept")
    shown = Table(*columns)
    lines = [f"# Home Depot: {result['task']}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name, figures in result["figures"].items():
        values = [f"{figures[m]:.3f}" for m in MEASURES] + ["-"] * 3
        if name in result["typos"]:
            values[3] = "-".join(f"{end:.3f}" for end in result["intervals"][name]["R@10"])
            values[4:] = [f"{result['typos'][name]['R@10']:.3f}", f"{result['typos'][name]['kept']:.0%}"]
        shown.add_row(name, *values)
        lines.append(f"| {name} | {' | '.join(values)} |")
    said = [f"{name}: {found[0]:+.3f} R@10 ({found[1]:+.3f} to {found[2]:+.3f})." for name, found in result["gains"].items()]
    lines += ["", *said, result["measure"] + "."]
    lines += [f"Bundle {result['bundle']}; {result['hardware']}; {result['seconds']} s.", ""]
    (directory / "evaluation.md").write_text("\n".join(lines), encoding="utf-8")
    out = console()
    out.print(result["task"] + "\n" + result["measure"])
    out.print(shown)
    return directory / "evaluation.md"


def _kept(with_typos: Mapping[str, float], plain: Mapping[str, float]) -> float:
    """Share of R@10 that is left; 0 where there was none."""
    return round(with_typos["R@10"] / plain["R@10"], 4) if plain["R@10"] else 0.0


def _scaled(scores_BN: np.ndarray) -> np.ndarray:
    highest = scores_BN.max(axis=1, keepdims=True)
    return scores_BN / np.where(highest > 0, highest, 1)
