"""Turn the pairs and the catalogue of a day into the tokenised dataset that training reads.

Reads pairs, title_groups and catalogue, writes datasets/ds=.../: Petastorm files of token ids, what is held out, the
features of every token, the tokenizer, and last of all the manifest. The directory takes its place by rename, whole.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import config
from etl.bert_tokenizer import bert_tokenizer
from etl.catalogue import read_catalogue, with_title_id
from etl.contracts import CATALOGUE, PAIRS, RUNS, TITLE_GROUPS
from etl.dataset import MANIFEST_FILE, TOKENS_FILE, DataFile, Manifest, Part, data_files, schemas
from etl.dataset_config import DatasetConfig
from etl.dataset_rows import as_examples, as_known, as_titles, as_token_table, catalogue_texts, refuse_collisions
from etl.durable import mend_swap, read_json, swap_in
from etl.errors import InputError
from etl.heldout import as_heldout, count_languages, count_scripts
from etl.inputs import version_of
from etl.job import run_job
from etl.petastorm_write import in_files, name_files, write_petastorm
from etl.runs import record_stage
from etl.session import hold, start_session
from etl.tables import latest_version, read
from etl.tokenize_texts import Tokenise
from etl.tokenizer import BothTokenizer, HashedTokenizer, Tokenizer, WordHashTokenizer, load_tokenizer, tokenizer_hash
from etl.tokenizer_spec import SPEC_FILE, TokenizerSpec
from etl.warehouse import Warehouse, is_delta
from etl.wordpiece import WordPieceTokenizer

log = logging.getLogger(__name__)


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(DatasetConfig, "labeller dataset", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), DatasetConfig, run, argv)


def run(config: DatasetConfig) -> Mapping[str, Any]:
    """Build the dataset of one day; returns the figures of the summary.

    Raises:
        InputError: ``tokenizer_from`` names no tokenizer, which is said before Spark starts; pairs or catalogue of the day
            are missing, or do not belong together. The dataset that was there stays.
    """
    started = time.monotonic()
    warehouse = Warehouse.of(config)
    target = warehouse.dataset(config.ds)
    mend_swap(target)
    known = known_tokenizer(config)
    spark = start_session("labeller dataset", config)
    pairs = _training_pairs(spark, warehouse, config)
    items = with_title_id(read_catalogue(spark, warehouse, config.ds, config.product_text), config.normaliser)
    groups = read(spark, warehouse.table(TITLE_GROUPS), TITLE_GROUPS, ds=config.ds)
    aside = target.with_name(f".{target.name}.building")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with ExitStack() as held:
        texts = hold(catalogue_texts(items, groups), held)
        spec = _write_parts(pairs, texts, known, aside, config, held)
    inputs = {
        PAIRS.name: f"delta:{latest_version(spark, warehouse.table(PAIRS))}",
        TITLE_GROUPS.name: f"delta:{latest_version(spark, warehouse.table(TITLE_GROUPS))}",
        CATALOGUE.name: version_of(spark, warehouse, CATALOGUE, [config.ds]),
    }
    seen = {"languages": count_languages(pairs), "scripts": count_scripts(pairs, config.normaliser)}
    manifest = _manifest(aside, config, spec, inputs, seen | {"cleaning": cleaning_of(spark, warehouse, config.ds)})
    manifest.write(aside)
    swap_in(aside, target)
    counts = {part: manifest.rows(part) for part in ("pairs", "titles", "corpus", "heldout", "known", "tokens")}
    record_stage(spark, warehouse, config.ds, "dataset", inputs=inputs, counts=counts, seconds=time.monotonic() - started)
    return counts | {"path": target}


def cleaning_of(spark: SparkSession, warehouse: Warehouse, ds: dt.date) -> dict[str, Any]:
    """Settings and counts of the stage that made the day's pairs, for the card of the bundle; empty if not on record."""
    if not is_delta(warehouse.table(RUNS)):
        return {}
    row = read(spark, warehouse.table(RUNS), RUNS, ds=ds, stage="pairs").head()
    return {} if row is None else {name: json.loads(row[name] or "{}") for name in ("settings", "counts")}


def _training_pairs(spark: SparkSession, warehouse: Warehouse, config: DatasetConfig) -> DataFrame:
    pairs = read(spark, warehouse.table(PAIRS), PAIRS, ds=config.ds)
    if pairs.where("sampled").isEmpty():
        raise InputError(
            f"pairs/ds={config.ds} has 0 rows of the split train (expected >= 1): "
            f"run `labeller pairs --ds {config.ds}` first"
        )
    return pairs


def _write_parts(
    pairs: DataFrame, texts: DataFrame, known: Tokenizer | None, aside: Path, config: DatasetConfig, held: ExitStack
) -> TokenizerSpec:
    """Every part but the manifest; ``texts`` of :func:`catalogue_texts`, ``known`` of :func:`known_tokenizer`."""
    asked = pairs.select("query_id", F.col("query").alias("text")).distinct()
    tokenizer = known or _train_tokenizer(config, pairs, texts)
    tokenizer.save(aside)
    tokenise = Tokenise.of(aside)
    titles = hold(texts.transform(tokenise.ids("title", "title")), held)
    queries = hold(asked.transform(tokenise.ids("query", "query")), held)
    layout = {"files": config.ranks * config.files_per_rank, "row_group_mb": config.row_group_mb}
    write_petastorm(as_titles(titles, pairs), aside / "titles", keys=["title_id"], **layout)
    _write_plain(titles.where("heldout").select("title_id", "title"), aside / "corpus", ["title_id"])

    log.info("titles/ is written; next the pairs, with the titles that their query's words are cut from")
    examples = hold(as_examples(pairs, queries, titles).transform(tokenise.cut_titles), held)
    _check_complete(pairs, examples, config)
    write_petastorm(examples.drop("cut"), aside / "pairs", keys=["pair_id"], **layout)
    log.info("pairs/ is written; next known pairs, held-out queries and the table of tokens")
    _write_plain(as_known(pairs), aside / "known", ["query_group", "item_group"], layout["files"])
    heldout = hold(pairs.transform(as_heldout(queries)).transform(tokenise.ids("query", "query_typos")), held)
    _write_plain(heldout.drop("text"), aside / "heldout", ["split", "query_id"])
    if isinstance(tokenizer, HashedTokenizer):
        cut = examples.select(F.col("cut").alias("text")).where(F.col("text").isNotNull()).distinct()
        found = queries.select("text", F.lit("query").alias("side"))
        found = found.union(titles.select("text", F.lit("title"))).union(cut.select("text", F.lit("title")))
        found = found.union(heldout.select("text", F.lit("query")))
        tokens = hold(found.transform(tokenise.token_features).transform(as_token_table), held)
        refuse_collisions(tokens)
        _write_plain(tokens.drop("other"), aside / ".tokens", ["id"])
        (aside / ".tokens" / "part-00000.parquet").rename(aside / TOKENS_FILE)
        (aside / ".tokens").rmdir()
    return tokenizer.spec


def _train_tokenizer(config: DatasetConfig, pairs: DataFrame, texts: DataFrame) -> Tokenizer:
    asked = pairs.where(F.col("split") == "train").select(F.col("query").alias("text"))
    every = asked.union(texts.where(~F.col("heldout")).select("text"))
    drawn = every.distinct().orderBy(F.xxhash64("text"), "text").limit(config.wordpiece_texts)
    kind = BothTokenizer if config.tokenizer == "both" else WordPieceTokenizer
    return kind.train(config.spec(), (row["text"] for row in drawn.toLocalIterator()))


def known_tokenizer(config: DatasetConfig) -> Tokenizer | None:
    """The tokenizer that the settings alone decide; None where it is to be trained on the window's texts.

    Raises:
        InputError: ``tokenizer_from`` names none.
    """
    directory = _tokenizer_directory(config)
    if directory is not None:
        if (directory / SPEC_FILE).is_file():
            return load_tokenizer(directory)
        return bert_tokenizer(directory, config.spec())
    return WordHashTokenizer(config.spec()) if config.tokenizer == "wordhash" else None


def _tokenizer_directory(config: DatasetConfig) -> Path | None:
    """Where the tokenizer lies that is taken over; None: nowhere, as with champion before the first promotion."""
    if config.tokenizer_from == "champion":
        warehouse = Warehouse.of(config)
        alias = warehouse.bundles / "champion.json"
        if not alias.is_file():
            log.info("tokenizer_from is champion, and there is none yet: the tokenizer is made anew")
            return None
        cure = "put a copy of it back, or let tokenizer_from be the directory of a bundle"
        found = warehouse.bundle(str(read_json(alias, cure=cure).get("bundle")))
        held = read_json(found / MANIFEST_FILE, f"is no bundle, and {alias} names it").get("id")
        if held != found.name:
            raise InputError(
                f"{found} holds bundle {held} (expected {found.name}, which {alias} names): copy that one there again"
            )
        return found
    return Path(config.tokenizer_from).expanduser() if config.tokenizer_from else None


def _check_complete(pairs: DataFrame, examples: DataFrame, config: DatasetConfig) -> None:
    expected = pairs.where("sampled").select("query_id", "title_id").distinct().count()
    found = examples.count()
    if found != expected:
        raise InputError(
            f"pairs/ds={config.ds} holds {expected} pairs to train on, of which {found} have their title in "
            f"catalogue/ds={config.ds}: the catalogue or [text] of warehouse.toml changed since; run "
            f"`labeller pairs --ds {config.ds}` again"
        )


def _write_plain(frame: DataFrame, directory: Path, keys: list[str], files: int = 1) -> None:
    in_files(frame, keys, files=files).sortWithinPartitions(*keys).write.parquet(str(directory))
    name_files(directory)


def _manifest(
    directory: Path,
    config: DatasetConfig,
    spec: TokenizerSpec,
    inputs: Mapping[str, str],
    seen: Mapping[str, Mapping[str, Any]],
) -> Manifest:
    files: dict[Part, list[DataFile]] = {part: [] for part in get_args(Part)}
    for path in data_files(directory):
        first = path.relative_to(directory).parts[0]
        part: Any = first if first in files else "tokens" if first == TOKENS_FILE else "tokenizer"
        files[part].append(DataFile.of(directory, path))
    parts = {part: tuple(found) for part, found in files.items()}
    return Manifest(
        ds=config.ds,
        token_dtype="int64" if spec.hashed else "uint32",
        tokenizer=tokenizer_hash(directory),
        normaliser=spec.normaliser,
        spec=asdict(spec),
        inputs=inputs,
        parts=parts,
        schema=schemas(directory, parts),
        ranks=config.ranks,
        **seen,
    )


if __name__ == "__main__":
    sys.exit(main())
