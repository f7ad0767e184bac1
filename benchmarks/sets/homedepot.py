"""Home Depot product search relevance: 74,067 human judgements as a warehouse, and retrieval of unseen queries.

``warehouse`` writes click log, catalogue, vocabulary and truth; ``evaluate`` measures the promoted bundle on the
queries that no click shows, against all titles, beside BM25.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.sets.adapter import (
    TRUTH_TERMS,
    open_root,
    run_command,
    write_catalogue,
    write_events,
    write_settings,
    write_truth,
    write_vocabulary,
)
from benchmarks.sets.homedepot_evaluation import EvaluateConfig, evaluate
from benchmarks.sets.homedepot_judgements import (
    CLICKED,
    SET,
    HomeDepotConfig,
    Judgement,
    held_out_products,
    products_of_terms,
    read_judgements,
    titles_by_product,
    unseen_queries,
)
from etl.text import normalise, stem, words

MADE_UP = (
    "users, sessions, positions and times: each query is one session of one user, so k-anonymity is 1 here",
    f"events: a judged row is an impression, relevance >= {CLICKED} a click too",
)

SETTINGS = """# Home Depot product search relevance, written by benchmarks.homedepot.
[warehouse]
absent = ["taxonomy"]

[pairs]
min_users = 1        # users are made up: one for each query
window_days = 1
valid_share = 0.02   # the queries that count are held out before this, see benchmarks/sets/homedepot.py
test_share = 0.02
test_item_share = 0  # no item is held out: the tasks that these figures are compared with hold out none

[dataset]
rows = 262144        # twice the default, since the n-grams of lengths 2 and 5 are new rows
ngrams = [2, 3, 4, 5]

[train]              # chosen on a validation part of the training queries, never on the unseen ones
preset = "bag"
query_word_dropout = 0   # queries here are judged against whole titles
crops = 8
feature_dropout = 0.2
dim = 1024
ranks = 1                # another one doubles the batch
"""


def warehouse(config: HomeDepotConfig) -> Mapping[str, Any]:
    """Write click log, catalogue, vocabulary and truth of the set as a warehouse."""
    judgements = read_judgements(config.data)
    titles, terms, unseen = titles_by_product(judgements), products_of_terms(judgements), unseen_queries(judgements)
    root = open_root(config.root, SET, MADE_UP)
    held_out = set.union(*held_out_products(terms)) if config.hold_out_products else set()
    seen = [j for j in judgements if j.query not in unseen and j.product not in held_out]
    shown = {product: title for product, title in titles.items() if product not in held_out}
    events = write_events(root, config.ds, *_events(seen))
    write_catalogue(root, config.ds, list(shown), list(shown.values()), "en")
    term_ids = {term: f"t{n:04}" for n, term in enumerate(terms)}
    write_vocabulary(root, term_ids, "en")
    truth = write_truth(root, "item_terms", TRUTH_TERMS, _truth(titles, terms, term_ids))
    write_settings(root, SETTINGS)
    return {
        "events": events,
        "items": len(shown),
        "terms": len(term_ids),
        "truth": truth,
        "unseen_queries": len(unseen),
        "path": root,
    }


def _events(judgements: Sequence[Judgement]) -> tuple[list[str], dict[str, list[Any]]]:
    """The session of each event, and its columns."""
    sessions: list[str] = []
    columns: dict[str, list[Any]] = {name: [] for name in ("query", "item_id", "event", "position")}
    shown: dict[str, int] = defaultdict(int)
    number: dict[str, int] = {}
    for j in judgements:
        shown[j.query] += 1
        for event in ("impression", "click") if j.relevance >= CLICKED else ("impression",):
            sessions.append(f"s{number.setdefault(j.query, len(number))}")
            for name, value in zip(columns, (j.query, j.product, event, shown[j.query]), strict=True):
                columns[name].append(value)
    return sessions, columns


def _truth(
    titles: Mapping[str, str], terms: Mapping[str, set[str]], term_ids: Mapping[str, str]
) -> list[tuple[str, str, bool]]:
    """Rows of truth/item_terms: a title lacks its terms if a word of each of them is not in it."""
    words_of_term = {term: _stems(term) for term in terms}
    terms_of_product = defaultdict(list)
    for term, products in terms.items():
        for product in products:
            terms_of_product[product].append(term)
    rows = []
    for product, found in sorted(terms_of_product.items()):
        title = _stems(titles[product])
        lacks = all(words_of_term[term] - title for term in found)
        rows += [(product, term_ids[term], lacks) for term in found]
    return rows


def _stems(text: str) -> set[str]:
    return {stem(word) for word in words(normalise(text))}


COMMANDS = {"warehouse": (HomeDepotConfig, warehouse), "evaluate": (EvaluateConfig, evaluate)}


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("benchmarks.sets.homedepot", __doc__, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
