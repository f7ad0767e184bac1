"""What people say of an annotation sample: a CSV file to fill in, and the same read back, problems named by line."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etl.errors import InputError, did_you_mean

ASKED = {"term": ("term_right", "right_term"), "category": ("category_right", "right_category")}
"""What is judged -> the column of yes or no, and that of the right id where it is no."""
SHOWN = ("item_id", "run_id", "title", "term", "term_probability", "category_path", "category_probability")
FILLED = (*(name for names in ASKED.values() for name in names), "author", "at")
NEEDED = ("item_id", "run_id", *FILLED)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One item as a person judged it."""

    item_id: str
    stratum: str
    right: Mapping[str, bool]
    """What was judged, term or category -> whether it is right."""
    instead: Mapping[str, str]
    """What was wrong -> the id that is right, where the person knew."""
    author: str
    at: dt.datetime


def write_sheet(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Rows of ANNOTATION_SAMPLE as a CSV file whose further columns a person fills in."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow((*SHOWN, *FILLED))
        writer.writerows([*(row[name] for name in SHOWN), *("" for _ in FILLED)] for row in rows)


def read_sheets(
    files: Sequence[Path], sample: Sequence[Mapping[str, Any]], known: Mapping[str, frozenset[str]]
) -> list[Judgement]:
    """Judged rows of CSV files; rows in which nothing is filled in are left out.

    Args:
        files: To read.
        sample: Rows of ANNOTATION_SAMPLE that were judged.
        known: term, category -> ids that may stand instead.

    Raises:
        InputError: a file cannot be read or lacks columns, or rows do not fit; all problems, with file and line.
    """
    drawn = {row["item_id"]: row for row in sample}
    found: list[Judgement] = []
    problems: list[str] = []
    judged_at: dict[str, str] = {}
    for file in files:
        for line, row in _rows(file):
            place, item = f"{file} line {line}", row["item_id"]
            if not any(row[name] for names in ASKED.values() for name in names):
                continue
            wrong = _problems(row, drawn, known)
            if item in judged_at:
                wrong.append(f"item_id {item!r} is judged in {judged_at[item]} too (expected once)")
            judged_at.setdefault(item, place)
            problems += [f"{place}: {problem}" for problem in wrong]
            if not wrong:
                found.append(_judgement(row, drawn[item]))
    if problems:
        raise InputError.of(problems, heading="judgements refused, nothing was written:")
    if not found:
        raise InputError(
            f"{', '.join(map(str, files))}: nothing is judged (expected yes or no in term_right or category_right)"
        )
    return found


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line on which a row ends, and its columns NEEDED, stripped."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:  # spreadsheets put a mark before the first column
            reader = csv.DictReader(stream)
            missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{file} lacks the columns {missing} (found {list(reader.fieldnames or ())}): fill in a file that "
                    "`labeller review --export FILE` wrote"
                )
            for row in reader:
                yield reader.line_num, {name: (row[name] or "").strip() for name in NEEDED}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as CSV in UTF-8: {error}") from None


def _problems(
    row: Mapping[str, str], drawn: Mapping[str, Mapping[str, Any]], known: Mapping[str, frozenset[str]]
) -> list[str]:
    item = drawn.get(row["item_id"])
    problems = []
    if item is None:
        problems.append(f"item_id {row['item_id']!r} is not in the sample of the day")
    elif item["run_id"] != row["run_id"]:
        problems.append(f"run_id {row['run_id']!r} was judged, the sample is now of run {item['run_id']!r}: export it again")
    for what, (verdict, instead) in ASKED.items():
        if row[verdict] not in ("", "yes", "no"):
            problems.append(f"{verdict} is {row[verdict]!r} (expected yes, no, or nothing)")
        if row[instead] and row[verdict] != "no":
            problems.append(f"{instead} is {row[instead]!r}, but {verdict} is not no")
        elif row[instead] and row[instead] not in known[what]:
            hint = did_you_mean(row[instead], known[what])
            problems.append(f"{instead} {row[instead]!r} is no id of an active {what}{hint}")
    if not row["author"]:
        problems.append("author is empty (expected who judged)")
    if _time(row["at"]) is None:
        problems.append(f"at is {row['at']!r} (expected when, such as 2024-05-09 or 2024-05-09T14:30:00+00:00)")
    return problems


def _judgement(row: Mapping[str, str], item: Mapping[str, Any]) -> Judgement:
    at = _time(row["at"])
    assert at is not None, "looked at before"
    return Judgement(
        item_id=row["item_id"],
        stratum=item["stratum"],
        right={what: row[verdict] == "yes" for what, (verdict, _) in ASKED.items() if row[verdict]},
        instead={what: row[instead] for what, (_, instead) in ASKED.items() if row[instead]},
        author=row["author"],
        at=at,
    )


def _time(text: str) -> dt.datetime | None:
    """A time, UTC unless it says another zone; None if it is none."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
