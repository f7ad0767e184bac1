from __future__ import annotations

import json
import logging

import pytest

from etl.config import JobConfig, SparkJobConfig, arg_parser
from etl.errors import StageFailed
from etl.job import run_job


@pytest.mark.fault("secrets")
def test_settings_are_logged_without_the_secrets_in_spark_s_own(root, caplog):
    conf = {
        "spark.hadoop.fs.s3a.secret.key": "hush",
        "spark.hadoop.javax.jdo.option.ConnectionPassword": "hush",
        "a": "said",
    }
    flags = [text for key, value in conf.items() for text in ("--spark-conf", f"{key}={value}")]
    seen = []

    def work(config):
        seen.append(config.spark_conf)
        return {}

    with caplog.at_level(logging.INFO):
        argv = ["--root", str(root), "--ds", "2024-05-07", *flags]
        assert run_job(arg_parser(SparkJobConfig, "job", ""), SparkJobConfig, work, argv) == 0
    assert seen == [conf]
    assert "said" in caplog.text
    assert "hush" not in caplog.text


def test_settings_that_are_the_default_are_not_logged(root, caplog):
    argv = ["--root", str(root), "--ds", "2024-05-07", "--master", "local[2]", "--driver-memory", "4g"]
    with caplog.at_level(logging.INFO):
        assert run_job(arg_parser(SparkJobConfig, "job", ""), SparkJobConfig, lambda _: {}, argv) == 0
    (line,) = [record.message for record in caplog.records if "settings" in record.message]
    shown = json.loads(line.partition(": ")[2])
    assert shown == {"root": str(root), "ds": "2024-05-07", "master": "local[2]"}


def test_what_a_stage_started_and_has_failed_is_told_without_a_traceback(root, capfd):
    def work(config):
        raise StageFailed("ranks ended with 247")

    assert run_job(arg_parser(JobConfig, "job", ""), JobConfig, work, ["--root", str(root), "--ds", "2024-05-07"]) == 1
    said = capfd.readouterr().err
    assert said.splitlines()[-1] == "job: failed: ranks ended with 247"
    assert "Traceback" not in said
