"""What may pass by itself is tried later; what is damaged, missing or forbidden is bad input."""

from __future__ import annotations

import errno
import os

import pytest

from etl import files, storage
from etl.contracts import CATALOGUE
from etl.errors import EXIT_TRY_LATER, TryLater
from etl.outage import may_pass, says_so
from etl.sources import Source
from labeling import audit, tables


@pytest.mark.parametrize(
    "said",
    [
        "Generic S3 error: Error performing GET http://s/b in 3s, after 10 retries - HTTP error: error sending request",
        "AWSClientIOException: Unable to execute HTTP request: Connect to s:443 failed: Connection refused",
        "Server returned non-2xx status code: 503: SlowDown",
        "java.net.SocketTimeoutException: Read timed out",
        "java.net.UnknownHostException: s3.example.com",
    ],
)
def test_a_store_that_is_silent_or_busy_may_answer_later(said: str) -> None:
    assert says_so(said)


@pytest.mark.parametrize(
    "said",
    [
        "<Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message>",
        "SignatureDoesNotMatch",
        "s3a://b/part-0.parquet is not a Parquet file. Expected magic number at tail, but found [1, 500, 503]",
        "Couldn't deserialize thrift: No more data to read.",
        "File not found: /data/click_log/part-500.parquet",
    ],
)
def test_what_is_damaged_missing_or_forbidden_stays_so(said: str) -> None:
    assert not says_so(said)


@pytest.mark.parametrize(
    ("number", "passes"), [(errno.EIO, True), (errno.ESTALE, True), (errno.EACCES, False), (errno.ENOENT, False)]
)
def test_a_mount_that_fails_is_told_from_a_file_that_is_not_ours_to_read(number: int, passes: bool) -> None:
    assert may_pass(OSError(number, os.strerror(number))) == passes


@pytest.mark.parametrize("store", ["s3a://bucket/shop", "hdfs://127.0.0.1:9/shop"])
def test_a_store_that_does_not_answer_ends_a_job_with_the_code_that_airflow_tries_again(store, monkeypatch, capsys) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    storage._file_system.cache_clear()
    assert audit.main(["--root", store, "--ds", "2024-05-07"]) == EXIT_TRY_LATER
    assert tables.main(["--root", store]) == EXIT_TRY_LATER
    said = capsys.readouterr().err
    assert "cannot be read now: Connection refused" in said
    assert "hush" not in said
    storage._file_system.cache_clear()


def test_a_footer_that_a_mount_does_not_give_is_no_damaged_file(tmp_path, monkeypatch) -> None:
    def stale(_: str) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(storage, "read_schema", stale)
    with pytest.raises(TryLater, match=r"part-0.parquet cannot be read now: .*Stale file handle"):
        files.check_files(str(tmp_path), CATALOGUE, Source(), [str(tmp_path / "part-0.parquet")])
