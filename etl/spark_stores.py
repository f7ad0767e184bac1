"""What a Spark session needs where tables lie on a store: its jars, and the settings that its variables stand for."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pyspark

from etl import storage
from etl.config import SparkConfig
from etl.errors import InputError

MARKS = {"s3a": "*hadoop-aws-*.jar", "abfs": "*hadoop-azure-*.jar"}
"""The jar without which Spark does not know a scheme; hdfs needs none."""


def jars_directory() -> Path:
    """Where set-up lays Delta's jars, and below it those of each store: inside the environment, they go and come with it."""
    return Path(sys.prefix) / "jars"


def schemes_of(config: SparkConfig) -> frozenset[str]:
    """Schemes of the stores that the root and the inputs lie on; abfss is abfs over TLS, of the same jars."""
    places = (config.root, *(source.path for source in config.inputs.values()))
    found = (urlsplit(place).scheme for place in places if storage.is_uri(place))
    return frozenset("abfs" if scheme == "abfss" else scheme for scheme in found)


def store_jars(schemes: Collection[str]) -> list[Path]:
    """The jars of the stores, as fetched by ``python -m etl.jars``; none where Spark's own directory has them.

    Raises:
        InputError: they were not fetched.
    """
    found: list[Path] = []
    for scheme in sorted(set(schemes) & set(MARKS)):
        if any((Path(pyspark.__file__).parent / "jars").glob(MARKS[scheme])):
            continue
        directory = jars_directory() / scheme
        if not any(directory.glob(MARKS[scheme])):
            raise InputError(
                f"no jars of {scheme}:// under {directory} (expected those that Spark opens it with): run "
                f"`{sys.executable} -m etl.jars {scheme}` (needs Maven Central once)"
            )
        found += sorted(directory.glob("*.jar"))
    return found


def store_settings(schemes: Collection[str], variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Spark's settings for what the variables of a store say beside keys, which Spark and Hadoop take from them themselves.

    A store that is named by its endpoint is asked for paths (http://host/bucket): few have a host name for each bucket.
    """
    settings = {}
    if "s3a" in schemes:
        if endpoint := variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL"):
            settings["spark.hadoop.fs.s3a.endpoint"] = endpoint
            settings["spark.hadoop.fs.s3a.path.style.access"] = "true"
        if region := variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION"):
            settings["spark.hadoop.fs.s3a.endpoint.region"] = region
    return settings
