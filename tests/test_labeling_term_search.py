from __future__ import annotations

from pathlib import Path

import numpy as np

from etl.text import contains, normalise, words
from labeling.lexical import ContainedTerms
from labeling.term_search import CANDIDATES, TermIndex, TermSearch
from tests.labeling_data import query_encoder, title_vectors, vocabulary, write_small_bundle
from tests.rows import term


def search(root: Path, rows: list[dict] | None = None) -> TermSearch:
    return TermSearch(TermIndex.build(vocabulary(rows), query_encoder(write_small_bundle(root)), normalise))


def test_exact_search_finds_what_a_full_scan_over_all_forms_finds(root):
    names = [
        f"{a} {b}" for a in ("red", "blue", "steel", "wool") for b in ("kettle", "dress", "lamp", "mat", "drill", "sofa")
    ]
    rows = [term(f"t{n:02}", name, synonyms=[f"{name} set", f"{name} large"]) for n, name in enumerate(names)]
    bundle = write_small_bundle(root)
    engine = search(root, rows)
    vectors = title_vectors(bundle, ["red kettle x9", "wool mat 120 cm", "steel drill set"])
    scores = (vectors @ engine.index.vectors.astype(np.float64).T).round(6)
    for item, found in enumerate(engine.candidates(vectors, [""] * 3)[0]):
        best = [scores[item, engine.index.form_terms == t].max() for t in range(len(rows))]
        order = sorted(range(len(rows)), key=lambda t: (-best[t], t))[:CANDIDATES]
        assert [candidate.term for candidate in found] == order


def test_scores_do_not_depend_on_how_many_items_are_scored_together(root):
    engine = search(root)
    vectors = title_vectors(write_small_bundle(root), [f"kettle {n} dress {n * 7} lamp" for n in range(300)])
    (together,) = engine.candidates(vectors, [""] * 300)
    assert together == [engine.candidates(vector[None], [""])[0][0] for vector in vectors]


MANY = [term(f"t{n:02}", f"thing {n}") for n in range(40)]


def test_a_term_that_stands_in_the_text_gains_the_weight_and_its_cosine_stays(root):
    engine, text = search(root, MANY), "thing 7 of steel"
    plain, fused = (
        found[0] for found in engine.candidates(title_vectors(write_small_bundle(root), [text]), [text], (0, 0.3))
    )
    before, after = (next(c for c in ranked if c.term == 7) for ranked in (plain, fused))
    assert after.cosine == before.cosine == before.score
    assert after.score == round(before.cosine + 0.3, 6)
    assert [c.term for c in fused if c.lexical] == [7]


def test_a_term_below_the_nearest_ones_that_stands_in_the_text_is_a_candidate_under_a_weight(root):
    engine = search(root, [*MANY, term("x", "kettle")])
    vector = title_vectors(write_small_bundle(root), ["thing 1 thing 2 thing 3"])
    plain, fused = (found[0] for found in engine.candidates(vector, ["kettle"], (0.0, 1.0)))
    assert 40 not in {candidate.term for candidate in plain}
    assert (fused[0].term, fused[0].lexical) == (40, True)
    unit = engine.index.vectors[40].astype(np.float64)
    assert fused[0].cosine == round(float(vector[0] @ unit / np.linalg.norm(unit)), 6)


def test_contained_terms_are_those_that_a_look_for_each_one_finds():
    forms = ["running shoes", "shoe", "red shoes", "连衣裙", "连衣", "dress", "", "s"]
    texts = ["red running shoe", "shoes", "新款连衣裙 dresses", "dress shoe", "", "running dress shoes", "s"]
    form_words = [words(form) for form in forms]
    contained = ContainedTerms(form_words, range(len(forms)))
    for text in texts:
        expected = {n for n, form in enumerate(form_words) if contains(words(text), form)}
        assert contained.of(words(text)) == expected
