"""Taobao titles with marked product terms (Chinese): the terms as queries, and titles from which they are cut.

Two days: ``ds`` holds the titles of train, whose (term, title) pairs are the clicks; ``ds + 1`` has the same clicks and
the titles of test too, each as it is and once more with every term of its own cut out, where a tagger cannot but fail.
"""

from __future__ import annotations

import datetime as dt
import gzip
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.sets.adapter import (
    TRUTH_TERMS,
    AdapterConfig,
    data_file,
    open_root,
    run_command,
    write_catalogue,
    write_events,
    write_settings,
    write_truth,
    write_vocabulary,
)
from etl.errors import InputError
from etl.text import normalise, words

SET = "taobao"
PARTS = ("train", "dev", "test")
TERM_TAG = "HCCX"

MADE_UP = (
    "all clicks: each term of a train title is a query that led to it, by one user in one session",
    "the second day repeats the clicks of the first; its catalogue has the test titles too, as they are and with "
    "their terms cut out (item ids ending in -cut)",
)

SETTINGS = """# Taobao titles with marked terms, written by benchmarks.taobao.
[warehouse]
absent = ["taxonomy"]

[pairs]
min_users = 1        # users are made up: one for each title
window_days = 1
valid_share = 0.02
test_share = 0.02
test_item_share = 0  # no item is held out: the tasks that these figures are compared with hold out none
"""


class TaobaoConfig(AdapterConfig):
    """Where the titles are and where the warehouse goes."""

    data: str = "../shared/data/taobao_title_ner"
    """Directory with train.txt.gz, dev.txt.gz and test.txt.gz."""


@dataclass(frozen=True, slots=True)
class Title:
    """One title and its terms, in order, each once."""

    item_id: str
    text: str
    terms: tuple[str, ...]

    def cut(self) -> Title:
        """The title without any occurrence of its terms; the longest go first, or a part of them would be left."""
        text = self.text
        for term in sorted(self.terms, key=len, reverse=True):
            text = text.replace(term, "")
        return Title(f"{self.item_id}-cut", text, self.terms)


def read_titles(directory: str, part: str) -> list[Title]:
    """The titles of a part: a character and its tag a line, a blank line between titles.

    Raises:
        InputError: the file is missing, or a line is no character and tag.
    """
    path = data_file(directory, f"{part}.txt.gz")
    titles: list[Title] = []
    rows: list[tuple[str, str]] = []
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for number, line in enumerate([*file, "\n"], start=1):
            line = line.rstrip("\r\n")
            if line:
                # The character itself may be a space.
                character, separator, tag = line[0], line[1:2], line[2:]
                if separator != " " or not tag:
                    raise InputError(f"{path} line {number} is {line!r} (expected a character, a space and a tag)")
                rows.append((character, tag))
            elif rows:
                terms = tuple(dict.fromkeys(_spans(rows)))
                titles.append(Title(f"{part}-{len(titles):05}", "".join(c for c, _ in rows), terms))
                rows = []
    return titles


def warehouse(config: TaobaoConfig) -> Mapping[str, Any]:
    """Write click log, catalogue, vocabulary and truth of the set as a warehouse of two days."""
    titles = {part: read_titles(config.data, part) for part in PARTS}
    # Curated: it knows terms of all parts, so also such that no click shows.
    terms = sorted({term for part in titles.values() for title in part for term in title.terms if words(normalise(term))})
    root = open_root(config.root, SET, MADE_UP)
    cut = [title.cut() for title in titles["test"] if title.terms]
    tested = [*titles["test"], *(title for title in cut if words(normalise(title.text)))]
    sessions, columns = _clicks(titles["train"])
    for ds, shown in ((config.ds, titles["train"]), (config.ds + dt.timedelta(days=1), [*titles["train"], *tested])):
        write_events(root, ds, sessions, columns)
        write_catalogue(root, ds, [t.item_id for t in shown], [t.text for t in shown], "zh")
    ids = {term: f"t{n:05}" for n, term in enumerate(terms)}
    write_vocabulary(root, ids, "zh")
    rows = [(t.item_id, ids[term], t.item_id.endswith("-cut")) for t in tested for term in t.terms if term in ids]
    truth = write_truth(root, "item_terms", TRUTH_TERMS, rows)
    write_settings(root, SETTINGS)
    figures = {
        "train_titles": len(titles["train"]),
        "test_titles": len(titles["test"]),
        "cut_titles": len(tested) - len(titles["test"]),
    }
    return figures | {"clicks": len(sessions), "terms": len(ids), "truth": truth, "days": f"{config.ds},{ds}", "path": root}


def _spans(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The texts of the term spans among (character, tag) rows."""
    span = ""
    for character, tag in [*rows, ("", "O")]:
        if tag == f"I-{TERM_TAG}" and span:
            span += character
            continue
        if span:
            yield span
        span = character if tag.endswith(f"-{TERM_TAG}") else ""


def _clicks(titles: Sequence[Title]) -> tuple[list[str], dict[str, list[Any]]]:
    """The session of each made-up click, and its columns."""
    clicks = [(title.item_id, term) for title in titles for term in title.terms]
    columns: dict[str, list[Any]] = {
        "query": [term for _, term in clicks],
        "item_id": [item_id for item_id, _ in clicks],
        "event": ["click"] * len(clicks),
        "position": [1] * len(clicks),
    }
    return [f"s-{item_id}" for item_id, _ in clicks], columns


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("benchmarks.sets.taobao", __doc__, {"warehouse": (TaobaoConfig, warehouse)}, argv)


if __name__ == "__main__":
    sys.exit(main())
