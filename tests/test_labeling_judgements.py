"""Judged samples as files: what is accepted, and every refusal by line. No Spark."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path

import pytest

from etl.errors import InputError
from labeling.judgements import FILLED, SHOWN, read_sheets, write_sheet

SAMPLE = [
    {"item_id": item, "run_id": "r1", "title": "Kettle, 1.7 l\nsteel", "term": "kettle", "stratum": "0.7 to 0.9 | Home"}
    | {"term_probability": 0.8, "category_path": None, "category_probability": None}
    for item in ("i1", "i2", "i3")
]
KNOWN = {"term": frozenset({"t1", "t2"}), "category": frozenset({"h1"})}


def filled(file: Path, *rows: dict[str, str]) -> Path:
    """A sheet whose first rows are filled in."""
    write_sheet(SAMPLE, file)
    with file.open(newline="") as stream:
        found = list(csv.DictReader(stream))
    for row, more in zip(found, rows, strict=False):
        row |= {"author": "ann", "at": "2024-05-09"} | more
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, (*SHOWN, *FILLED))
        writer.writeheader()
        writer.writerows(found)
    return file


def test_rows_that_are_filled_in_are_read_others_left_out(tmp_path: Path):
    wrong = {"term_right": "no", "right_term": "t1", "category_right": "yes"}
    first, second = read_sheets([filled(tmp_path / "a.csv", {"term_right": "yes"}, wrong)], SAMPLE, KNOWN)
    assert (first.item_id, first.right, first.instead) == ("i1", {"term": True}, {})
    assert (second.right, second.instead) == ({"term": False, "category": True}, {"term": "t1"})
    assert (second.author, second.at) == ("ann", dt.datetime(2024, 5, 9, tzinfo=dt.UTC))
    assert second.stratum == "0.7 to 0.9 | Home"


def test_every_problem_is_named_by_file_and_line(tmp_path: Path):
    file = filled(
        tmp_path / "a.csv",
        {"term_right": "maybe", "item_id": "i404"},
        {"term_right": "yes", "right_term": "t1", "run_id": "r0", "author": "", "at": "soon"},
        {"term_right": "no", "right_term": "t22", "category_right": "no", "right_category": "x"},
    )
    with pytest.raises(InputError) as refused:
        read_sheets([file], SAMPLE, KNOWN)
    # Titles of two lines: rows end on lines 3, 5 and 7.
    assert refused.value.problems == (
        f"{file} line 3: item_id 'i404' is not in the sample of the day",
        f"{file} line 3: term_right is 'maybe' (expected yes, no, or nothing)",
        f"{file} line 5: run_id 'r0' was judged, the sample is now of run 'r1': export it again",
        f"{file} line 5: right_term is 't1', but term_right is not no",
        f"{file} line 5: author is empty (expected who judged)",
        f"{file} line 5: at is 'soon' (expected when, such as 2024-05-09 or 2024-05-09T14:30:00+00:00)",
        f"{file} line 7: right_term 't22' is no id of an active term: did you mean t2?",
        f"{file} line 7: right_category 'x' is no id of an active category",
    )


def test_an_item_that_two_files_judge_is_refused(tmp_path: Path):
    files = [filled(tmp_path / name, {"term_right": "yes"}) for name in ("a.csv", "b.csv")]
    with pytest.raises(InputError, match=r"b.csv line 3: item_id 'i1' is judged in .*a.csv line 3 too"):
        read_sheets(files, SAMPLE, KNOWN)


def test_a_sheet_that_nobody_filled_in_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="nothing is judged"):
        read_sheets([filled(tmp_path / "a.csv")], SAMPLE, KNOWN)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"item_id,term\n", "lacks the columns"), (b"\xff\xfe\x00", "cannot be read as CSV"), (None, "No such")],
)
def test_a_file_that_is_no_sheet_is_refused(tmp_path: Path, content: bytes | None, said: str):
    file = tmp_path / "a.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_sheets([file], SAMPLE, KNOWN)
