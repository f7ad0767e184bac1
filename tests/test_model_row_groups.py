"""The thread that reads ahead: what reaches the consumer when the storage hangs or lies, and that the thread ends."""

import contextlib
import os
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.row_groups import ReaderStalled, Source, UnreadableFile, row_groups


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"part-{n}.parquet" for n in range(3)]
    for n, path in enumerate(paths):
        pq.write_table(pa.table({"n": range(100 * n, 100 * n + 100)}), path, row_group_size=10)
    return paths


def read(files, timeout_s=30.0, seed=5):
    source = Source(files=files, columns=["n"], seed=seed, who="pairs, epoch 2, rank 1 of 4")
    return row_groups(source, ahead=2, timeout_s=timeout_s)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read pairs")]


def test_every_row_group_comes_once_in_an_order_that_the_seed_decides(files):
    once, again, other = ([t["n"].to_pylist() for t in read(files, seed=seed)] for seed in (5, 5, 6))
    assert once == again != other
    assert sorted(n for group in once for n in group) == list(range(300))
    assert not threads()


def test_the_thread_ends_when_the_consumer_stops_early(files):
    groups = read(files)
    next(groups)
    assert len(threads()) == 1
    groups.close()
    assert not threads()


def test_storage_that_hangs_is_an_error_that_says_who_waited_for_which_files(files):
    groups = read(files, timeout_s=2.0)
    next(groups)
    for path in files:
        os.mkfifo(pipe := path.with_suffix(".pipe"))  # to open it blocks until somebody writes to it
        pipe.replace(path)  # in one step: the thread reads ahead and would find no file
    with pytest.raises(ReaderStalled, match=r"within 2 s \(pairs, epoch 2, rank 1 of 4; files: .*part-0.*part-2.parquet"):
        list(groups)
    assert len(threads()) == 1
    deadline = time.monotonic() + 30
    while threads() and time.monotonic() < deadline:
        for path in files:
            with contextlib.suppress(OSError):  # nobody reads this one
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        time.sleep(0.05)
    assert not threads()


@pytest.mark.fault("parquet-damaged")
def test_a_corrupt_page_is_an_error_that_names_the_file(files):
    content = bytearray(files[2].read_bytes())
    content[4:200] = b"\xff" * 196  # the first pages; the footer stays whole
    files[2].write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"cannot read pairs, epoch 2, rank 1 of 4: \S*part-2.parquet: ") as caught:
        list(read(files))
    assert isinstance(caught.value.__cause__, OSError)
    assert "part-1" not in str(caught.value)
    assert not threads()


@pytest.mark.fault("parquet-damaged")
def test_a_file_that_is_gone_is_named(files):
    files[0].unlink()
    with pytest.raises(UnreadableFile, match=r"part-0.parquet"):
        next(read(files))
