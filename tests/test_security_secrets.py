"""Passwords and keys are in no log, message or traceback."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from etl.config import SparkConfig, arg_parser, from_args
from etl.errors import InputError
from etl.redaction import RedactingFormatter, learn, redacted

pytestmark = pytest.mark.fault("secrets")

KEY = "AKIA-hush-hush-0123"
PASSWORD = "correct-horse"
JOB = """
import logging, os, sys
from etl.config import SparkJobConfig, arg_parser
from etl.errors import InputError
from etl.job import run_job
def work(config):
    log = logging.getLogger("x")
    log.info("store at https://me:%s@store/bucket?x-token=%s of %s", sys.argv[1], sys.argv[1], config.root)
    log.warning("the client says: key %s", config.spark_conf["spark.hadoop.fs.s3a.secret.key"])
    log.warning("and the variable %s", os.environ["DATABASE_PASSWORD"])
    if sys.argv[2] == "refused":
        raise InputError("jdbc:postgresql://me:%s@db/shop is not there" % sys.argv[1])
    raise RuntimeError("no answer of jdbc:mysql://db/shop?user=me&password=%s" % sys.argv[1])
sys.exit(run_job(arg_parser(SparkJobConfig, "job", ""), SparkJobConfig, work, sys.argv[3:]))
"""


@pytest.mark.parametrize(("how", "code"), [("refused", 2), ("broken", 1)])
def test_a_job_says_no_secret_of_settings_variables_or_addresses(root, how, code):
    flags = ["--root", str(root), "--ds", "2024-05-07", "--spark-conf", f"spark.hadoop.fs.s3a.secret.key={KEY}"]
    flags += ["--spark-conf", f"spark.hadoop.javax.jdo.option.ConnectionURL=jdbc:mysql://me:{PASSWORD}@db/shop"]
    done = subprocess.run(
        [sys.executable, "-c", JOB, PASSWORD, how, *flags],
        env=os.environ | {"DATABASE_PASSWORD": "battery-staple"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    said = done.stdout + done.stderr
    assert "store at https://(not shown)@store/bucket?x-token=(not shown) of" in said
    assert "the client says: key (not shown)" in said
    assert ("is not there" in said) == (how == "refused")
    assert ("RuntimeError: no answer of jdbc:mysql://db/shop?user=me&password=(not shown)" in said) == (how == "broken")
    for secret in (KEY, PASSWORD, "battery-staple"):
        assert secret not in said


def test_a_traceback_in_the_log_is_redacted_too():
    try:
        raise RuntimeError(f"https://me:{PASSWORD}@host")
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", None, sys.exc_info())
    shown = RedactingFormatter("%(message)s").format(record)
    assert "RuntimeError: https://(not shown)@host" in shown
    assert PASSWORD not in shown


def test_what_is_no_secret_is_left_as_it_is(monkeypatch):
    learn({"TOKENIZERS_PARALLELISM": "definitely", "TOKEN": "false", "tokens_per_s": "12345678"})
    said = "tokens_per_s=12345678 definitely false joe@example.com s3a://bucket/a@b https://host/x?page=2&day=2024-05-07"
    assert redacted(said) == said


@pytest.mark.parametrize("entry", ["spark.hadoop.fs.s3a.secret.key:hush-hush", "my.password"])
def test_a_setting_that_is_refused_is_not_told_with_its_secret(root, entry):
    args = arg_parser(SparkConfig, "job", "").parse_args(["--root", str(root), "--spark-conf", entry])
    with pytest.raises(InputError, match=r"--spark-conf \(not shown\): expected KEY=VALUE") as refused:
        from_args(SparkConfig, args)
    assert entry not in str(refused.value)


def test_a_value_of_the_file_that_is_refused_is_not_told_if_its_name_calls_it_secret(root):
    (root / "warehouse.toml").write_text('[spark.spark_conf]\n"spark.my.password" = 1234567\n"spark.cores" = 4711\n')
    args = arg_parser(SparkConfig, "job", "").parse_args(["--root", str(root)])
    with pytest.raises(InputError) as refused:
        from_args(SparkConfig, args)
    assert "spark_conf.spark.my.password: Input should be a valid string (found (not shown))" in str(refused.value)
    assert "(found 4711)" in str(refused.value)
    assert "1234567" not in str(refused.value)
