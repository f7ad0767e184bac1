"""A published day, as the jobs that follow the publishing read it: its labels beside the inputs they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from etl import tables
from etl.catalogue import read_catalogue
from etl.code import code_version
from etl.config import SparkJobConfig
from etl.contracts import OVERRIDES, PAIRS, RUNS, Table
from etl.errors import InputError
from etl.session import hold
from etl.warehouse import Warehouse
from labeling.audit import halves
from labeling.encoding import labelling_bundle
from labeling.live_labels import current_labels
from labeling.live_log import PUBLISH, live_state
from labeling.overrides import read_overrides
from labeling.predict import day_pairs
from labeling.publish import Lineage, lineage_columns, require_same_inputs
from labeling.relate_config import RelateConfig
from model.bundle import Bundle, load_bundle


@dataclass(frozen=True, slots=True)
class PublishedDay:
    """A published day: what was labelled, how, and what is live of it."""

    bundle: Bundle
    catalogue: DataFrame
    pairs: DataFrame
    labels: Mapping[Table, DataFrame]
    live: DataFrame
    """LABELS_CURRENT as that day's publishing made it."""
    source: Lineage
    stamps: Mapping[str, str]
    """Columns LINEAGE of the rows to write."""


def published_day(spark: SparkSession, warehouse: Warehouse, settings: RelateConfig, held: ExitStack) -> PublishedDay:
    """The published labels of the day beside the inputs that they were made from.

    Raises:
        InputError: there are none, or catalogue, vocabulary or taxonomy changed since.
    """
    labels = {t: tables.read(spark, warehouse.table(t), t, ds=settings.ds) for t in halves(settings)}
    if any(rows.isEmpty() for rows in labels.values()) or not labels:
        raise _unpublished(settings)
    columns = lineage_columns(labels)
    records = tables.read(spark, warehouse.table(RUNS), RUNS, ds=settings.ds, stage=PUBLISH, run_id=columns["run_id"])
    if records.isEmpty():
        raise _unpublished(settings)
    bundle = load_bundle(labelling_bundle(warehouse, columns["bundle"]))
    catalogue = read_catalogue(spark, warehouse, settings.ds, bundle.tokenizer.spec.product_text)
    catalogue = hold(catalogue, held)
    source = require_same_inputs(spark, warehouse, settings.ds, catalogue, labels, columns)
    judged = live_state(warehouse).overrides_as_of(settings.ds)
    overrides = read_overrides(spark, warehouse, judged, source.vocabulary, source.taxonomy)
    pairs = hold(day_pairs(spark, warehouse, settings.ds), held)
    inputs = {**source.inputs, PAIRS.name: tables.content_version(pairs)}
    if overrides is not None:
        inputs[OVERRIDES.name] = tables.content_version(overrides)
    live = hold(current_labels(catalogue, labels, overrides, columns, bundle.tokenizer.normalise), held)
    return PublishedDay(bundle, catalogue, pairs, labels, live, source, _stamps(settings, columns, inputs))


def _stamps(settings: RelateConfig, labels: Mapping[str, str], inputs: Mapping[str, str]) -> dict[str, str]:
    """LINEAGE of this run: that of the labels, but for the run, the code and what it read."""
    parts = {**labels, "code": code_version(), "inputs": json.dumps(dict(inputs), sort_keys=True)}
    fields = set(RelateConfig.model_fields) - set(SparkJobConfig.model_fields) - {"partitions"}
    identity = json.dumps(parts | settings.model_dump(mode="json", include=fields), sort_keys=True)
    return parts | {"run_id": f"{settings.ds}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"}


def _unpublished(settings: RelateConfig) -> InputError:
    return InputError(
        f"{settings.root} holds no published labels of ds={settings.ds} (expected a run that `labeller publish` made live): "
        "run `labeller predict`, `labeller audit` and `labeller publish` for that day first"
    )
