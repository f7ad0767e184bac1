"""What is replaced is whole, the old or the new, at every point at which the process that replaces it may be killed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from etl.durable import is_sealed, mend_swap, read_json, swap_in, write, write_json, write_sealed
from etl.errors import InputError
from tests.killed import each_death


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_file_is_the_old_or_the_new_one_wherever_its_writer_is_killed(tmp_path):
    file = tmp_path / "champion.json"
    seen = [
        read_json(file)["bundle"]
        for _ in each_death(lambda: write_json(file, {"bundle": "old"}), lambda _: write_json(file, {"bundle": "new"}))
    ]
    assert set(seen) == {"old", "new"}
    assert read_json(file) == {"bundle": "new"}


def test_content_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_writer_goes_on(tmp_path):
    called = []

    def note(frame, event, function):
        if event == "c_call" and function.__name__ in ("fsync", "replace", "rename"):
            called.append(function.__name__)

    (tmp_path / "aside").mkdir()
    for work in (
        lambda: write(tmp_path / "champion.json", b"{}"),
        lambda: swap_in(tmp_path / "aside", tmp_path / "target"),
    ):
        sys.setprofile(note)
        try:
            work()
        finally:
            sys.setprofile(None)
    assert called == ["fsync", "replace", "fsync", "fsync", "rename", "fsync"]


def test_a_link_in_the_place_of_a_draft_or_of_the_file_is_not_written_through(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    for name in (".champion.json.tmp", ".champion.json", ".manifest.json", "champion.json"):
        (tmp_path / name).symlink_to(outside)
    write_json(tmp_path / "champion.json", {"bundle": "b1"})
    assert outside.read_text() == "untouched"
    assert not (tmp_path / "champion.json").is_symlink()
    assert read_json(tmp_path / "champion.json") == {"bundle": "b1"}


@pytest.mark.parametrize("cut", [0, 1, 30, -2])
def test_a_cut_file_is_one_error_with_its_name_and_the_cure(tmp_path, cut):
    write_json(tmp_path / "champion.json", {"bundle": "b1", "ds": "2024-05-07"})
    whole = (tmp_path / "champion.json").read_bytes()
    (tmp_path / "champion.json").write_bytes(whole[:cut])
    with pytest.raises(InputError, match=r"champion.json cannot be read as JSON, it is cut or damaged \(.*\): run it again"):
        read_json(tmp_path / "champion.json", cure="run it again")


def test_a_sealed_file_of_which_any_bit_is_flipped_or_that_is_of_something_else_is_not_sealed(tmp_path):
    file = tmp_path / "metrics.json"
    write_sealed(file, {"loss": 3.2456789016723633, "lr": 1e-05, "by": {3: [1, "é"]}}, of="b1")
    assert is_sealed(file, of="b1")
    assert not is_sealed(file, of="b2")
    whole = file.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        file.write_bytes(flipped)
        assert not is_sealed(file, of="b1"), bytes(flipped)


def lay(directory: Path, which: str) -> Path:
    """A directory of two files that say which one they are of."""
    directory.mkdir()
    for name in ("manifest.json", "part"):
        (directory / name).write_text(which)
    return directory


def test_a_swap_that_is_killed_anywhere_leaves_the_old_directory_or_the_new_one_and_the_next_leaves_nothing_else(tmp_path):
    target, found = tmp_path / "ds=2024-05-07", []

    def lay_down() -> Path:
        for path in tmp_path.iterdir():
            shutil.rmtree(path)
        lay(target, "old")
        return lay(tmp_path / ".building", "new")

    for aside in each_death(lay_down, lambda aside: swap_in(aside, target)):
        was_missing = not target.exists()
        mend_swap(target)
        (which,) = {file.read_text() for file in target.iterdir()}
        found.append((was_missing, which))
        swap_in(lay(tmp_path / ".other", "third"), target)
        assert {file.read_text() for file in target.iterdir()} == {"third"}
        assert names(tmp_path) <= {target.name, aside.name}
    assert list(dict.fromkeys(found)) == [(False, "old"), (True, "old"), (False, "new")]


def test_what_is_half_removed_of_a_replaced_directory_is_never_put_back(tmp_path):
    def lay_down() -> None:
        for path in tmp_path.iterdir():
            shutil.rmtree(path)
        lay(tmp_path / "ds=1", "new")
        lay(tmp_path / ".ds=1.old", "old")

    for _ in each_death(lay_down, lambda _: mend_swap(tmp_path / "ds=1")):
        shutil.rmtree(tmp_path / "ds=1")  # as `labeller forget` does
        mend_swap(tmp_path / "ds=1")
        assert not (tmp_path / "ds=1").exists() or len(names(tmp_path / "ds=1")) == 2
