"""Give each pair of a training dataset hard negatives: titles that a bundle ranks high for the query and nobody clicked.

Semi-hard and positive-aware (Moreira et al. 2024, "NV-Retriever", TopK-PercPos): of the ranks 10 to 210 of a query, those
whose cosine is below 95% of the clicked title's. Titles nearer than that are more often right than wrong, and the first
ranks hold what is right and was never shown. The dataset comes out with further columns of pairs/, under a new manifest.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import config
from etl.config import SparkJobConfig
from etl.dataset import DataFile, Manifest, data_files, schemas, verify
from etl.dataset_config import DatasetConfig
from etl.durable import mend_swap, swap_in
from etl.errors import InputError
from etl.job import run_job
from etl.petastorm_write import write_petastorm
from etl.runs import record_stage
from etl.session import start_session
from etl.tokenizer import tokenizer_hash
from etl.warehouse import Warehouse
from labeling.encoding import labelling_bundle
from labeling.negatives import Search, add_negatives, lay_down, with_vectors
from model.bundle import Bundle, load_bundle
from model.hard_negatives import hard_columns
from model.train import can_mine
from model.train_config import TrainConfig

log = logging.getLogger(__name__)


class MineConfig(SparkJobConfig):
    """Settings of the mining job."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "mine")

    bundle: str = ""
    """Bundle that ranks the titles, by its id; empty: the champion. The dataset must have its tokenizer."""

    negatives: Annotated[int, Field(ge=1, le=16)] = 4
    """Hard negatives of each pair; training draws one of them in each epoch."""

    first_rank: Annotated[int, Field(ge=0)] = 10
    """Best ranks of a query that are left out: many of them are right and were never shown."""

    last_rank: Annotated[int, Field(ge=1)] = 210
    """Ranks from here on are not hard."""

    max_score_share: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Of the clicked title's cosine: a title above it is too likely to be right."""

    max_titles: Annotated[int, Field(ge=1)] = 2_000_000
    """Titles that are searched, drawn by their hash: workers of one machine share their vectors (1 KB each at 256 wide)."""

    seed: Annotated[int, Field(ge=0)] = 1
    """Of the draw among a pair's candidates."""

    if_wanted: bool = False
    """Do nothing where [train] hard_share is 0, or no champion can read the dataset: what the nightly DAG asks for."""

    @model_validator(mode="after")
    def _ranks_ascend(self) -> Self:
        if self.first_rank >= self.last_rank:
            raise ValueError(f"first_rank is {self.first_rank} (expected less than last_rank, {self.last_rank})")
        return self


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(MineConfig, "labeller mine", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), MineConfig, run, argv)


def run(settings: MineConfig) -> Mapping[str, Any]:
    """Mine for one day's dataset; one that has hard negatives gets new ones.

    Raises:
        InputError: no bundle or no dataset, or they have different tokenizers; the dataset that was there stays.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(settings)
    dataset = warehouse.dataset(settings.ds)
    mend_swap(dataset)
    if settings.if_wanted and (reason := _not_wanted(settings, warehouse)):
        log.info("no hard negatives are mined: %s", reason)
        return {"hard_negatives": 0}
    bundle = load_bundle(labelling_bundle(warehouse, settings.bundle))
    manifest = verify(dataset)
    _require_same_tokenizer(bundle, dataset, manifest)
    spark = start_session("labeller mine", settings)
    aside = dataset.with_name(f".{dataset.name}.building")
    shutil.rmtree(aside, ignore_errors=True)
    old = set(hard_columns(manifest.hard_negatives))
    shutil.copytree(dataset, aside, ignore=lambda where, _: ["pairs", "manifest.json"] if Path(where) == dataset else [])
    corpus = aside / f".corpus-{uuid.uuid4().hex}"
    try:
        titles = _titles(spark, dataset, settings)
        lay_down(with_vectors(titles, bundle=bundle, dataset=dataset, manifest=manifest), corpus)
        pairs = spark.read.parquet(*(str(dataset / file.path) for file in manifest.files("pairs"))).drop(*old)
        search = Search(
            bundle=str(bundle.path),
            bundle_id=bundle.id,
            dataset=str(dataset),
            digest=manifest.digest,
            corpus=str(corpus),
            negatives=settings.negatives,
            first_rank=settings.first_rank,
            last_rank=settings.last_rank,
            max_score_share=settings.max_score_share,
            seed=settings.seed,
        )
        mined = add_negatives(pairs, search).persist()
        counts = {"pairs": mined.count(), "pairs_without": mined.where("hard_found = 0").count()}
        counts["hard_negatives"] = sum(n * rows for n, rows in mined.groupBy("hard_found").count().collect())
        layout = {"files": len(manifest.files("pairs")), "row_group_mb": DatasetConfig.model_fields["row_group_mb"].default}
        write_petastorm(mined.drop("hard_found"), aside / "pairs", keys=["pair_id"], **layout)
        mined.unpersist()
    finally:
        shutil.rmtree(corpus, ignore_errors=True)
    _manifest(aside, manifest, bundle, settings).write(aside)
    swap_in(aside, dataset)
    record_stage(
        spark, warehouse, settings.ds, "mine",
        inputs=dict(manifest.inputs), counts=counts, seconds=time.monotonic() - started, bundle=bundle.id,
    )  # fmt: skip
    return counts | {"bundle": bundle.id, "path": dataset}


def _not_wanted(settings: MineConfig, warehouse: Warehouse) -> str:
    """Why there is nothing to mine tonight; empty if there is."""
    train = config.from_args(TrainConfig, argparse.Namespace(config=None, root=settings.root, ds=settings.ds))
    if not train.hard_share:
        return "[train] hard_share is 0"
    if not can_mine(warehouse, Manifest.read(warehouse.dataset(settings.ds))):
        return "there is no champion that has the dataset's tokenizer"
    return ""


def _require_same_tokenizer(bundle: Bundle, dataset: Path, manifest: Manifest) -> None:
    if tokenizer_hash(bundle.path) != manifest.tokenizer:
        raise InputError(
            f"dataset {dataset} has another tokenizer than bundle {bundle.id}, which could not read its token ids: build it "
            f"with `labeller dataset --tokenizer-from {bundle.path}`, or mine with a bundle that was trained on its like"
        )


def _titles(spark: SparkSession, dataset: Path, settings: MineConfig) -> DataFrame:
    """Titles that may be trained on, at most ``max_titles`` of them."""
    titles = spark.read.parquet(str(dataset / "titles"))
    total = titles.count()
    if total > settings.max_titles:
        log.warning("%d of %d titles are searched for hard negatives (max_titles)", settings.max_titles, total)
        titles = titles.orderBy(F.xxhash64("title_id"), "title_id").limit(settings.max_titles)
    return titles


def _manifest(directory: Path, before: Manifest, bundle: Bundle, settings: MineConfig) -> Manifest:
    pairs = tuple(DataFile.of(directory, path) for path in data_files(directory) if path.parent.name == "pairs")
    parts = {**before.parts, "pairs": pairs}
    found = replace(before, parts=parts, schema=schemas(directory, parts))
    if found.rows("pairs") != before.rows("pairs"):
        raise RuntimeError(f"{directory}: {found.rows('pairs')} pairs were written of {before.rows('pairs')}")
    asked = f"{settings.negatives} of ranks {settings.first_rank}-{settings.last_rank} below {settings.max_score_share}"
    return replace(found, inputs={**before.inputs, "hard_negatives": f"{bundle.id} {asked}"})


if __name__ == "__main__":
    sys.exit(main())
