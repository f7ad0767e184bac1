"""Turn the pairs and the catalogue of a day into the tokenised dataset that training reads.

Reads pairs and catalogue, writes datasets/ds=.../: Petastorm files of token ids, the held-out queries, the features of
every token, the tokenizer, and last of all the manifest. The directory takes its place by rename, whole.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import config
from etl.catalogue import read_catalogue, with_item_group
from etl.config import SparkJobConfig
from etl.contracts import CATALOGUE, PAIRS
from etl.dataset import TOKENS_FILE, DataFile, Manifest, Part, data_files
from etl.errors import InputError
from etl.inputs import version_of
from etl.job import run_job
from etl.petastorm_write import in_files, name_files, write_petastorm
from etl.runs import record_stage
from etl.session import hold, start_session
from etl.tables import latest_version, read
from etl.text_config import TextConfig
from etl.tokenize_texts import Tokenise
from etl.tokenizer import Tokenizer, TokenizerSpec, WordHashTokenizer, WordPieceTokenizer, tokenizer_hash
from etl.warehouse import Warehouse

log = logging.getLogger(__name__)


class DatasetConfig(TextConfig, SparkJobConfig):
    """Settings of the job."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "text", "dataset")

    tokenizer: Literal["wordhash", "wordpiece"] = "wordhash"
    """Hashed words with their letter n-grams, or WordPiece trained on the window's texts."""

    rows: Annotated[int, Field(ge=64)] = 2**17
    """Rows of the encoder's embedding table: hash buckets, or the size of the WordPiece vocabulary (30522 is BERT's)."""

    ngrams: tuple[int, ...] = (3, 4)
    """Lengths of the letter n-grams of hashed words."""

    max_query_tokens: Annotated[int, Field(ge=1)] = 32
    """Tokens of a query that are used."""

    max_title_tokens: Annotated[int, Field(ge=1)] = 100
    """Tokens of a title that are used."""

    wordpiece_texts: Annotated[int, Field(ge=1)] = 1_000_000
    """Texts, drawn by hash, from which WordPiece is trained."""

    files: Annotated[int, Field(ge=1, le=100_000)] = 8
    """Files of either Petastorm part, equal in rows: a multiple of the number of training ranks."""

    row_group_mb: Annotated[int, Field(ge=1)] = 16
    """Largest row group, MiB: what a training rank reads and shuffles at once."""

    def spec(self) -> TokenizerSpec:
        return TokenizerSpec(
            kind=self.tokenizer,
            rows=self.rows,
            ngrams=tuple(self.ngrams),
            max_query_tokens=self.max_query_tokens,
            max_title_tokens=self.max_title_tokens,
            normaliser=self.normaliser.hash,
            simplified_chinese=self.simplified_chinese,
            product_text=self.product_text,
        )


def arg_parser() -> argparse.ArgumentParser:
    return config.arg_parser(DatasetConfig, "labeller dataset", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), DatasetConfig, run, argv)


def run(config: DatasetConfig) -> Mapping[str, Any]:
    """Build the dataset of one day; returns the figures of the summary.

    Raises:
        InputError: pairs or catalogue of the day are missing, or do not belong together; the dataset that was there stays.
    """
    started = time.monotonic()
    warehouse = Warehouse.at(config.root)
    spark = start_session("labeller dataset", config)
    pairs = _training_pairs(spark, warehouse, config)
    items = read_catalogue(spark, warehouse, config.ds, config.product_text)
    target = warehouse.dataset(config.ds)
    aside = target.with_name(f".{target.name}.building")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with ExitStack() as held:
        _write_parts(pairs, items, aside, config, held)
    inputs = {
        PAIRS.name: f"delta:{latest_version(spark, warehouse.table(PAIRS))}",
        CATALOGUE.name: version_of(spark, warehouse, CATALOGUE, [config.ds]),
    }
    manifest = _manifest(aside, config, inputs)
    manifest.write(aside)
    _swap_in(aside, target)
    counts = {part: manifest.rows(part) for part in ("pairs", "titles", "heldout", "tokens")}
    record_stage(spark, warehouse, config.ds, "dataset", inputs=inputs, counts=counts, seconds=time.monotonic() - started)
    return counts | {"path": target}


def _training_pairs(spark: SparkSession, warehouse: Warehouse, config: DatasetConfig) -> DataFrame:
    pairs = read(spark, warehouse.table(PAIRS), PAIRS, ds=config.ds)
    if pairs.where(F.col("split") == "train").isEmpty():
        raise InputError(
            f"pairs/ds={config.ds} has 0 rows of the split train (expected >= 1): "
            f"run `labeller pairs --ds {config.ds}` first"
        )
    return pairs


def _write_parts(pairs: DataFrame, items: DataFrame, aside: Path, config: DatasetConfig, held: ExitStack) -> None:
    grouped = with_item_group(items.select("text"), config.normaliser).where(F.col("item_group").isNotNull())
    texts = {
        "title": grouped.groupBy("item_group").agg(F.min("text").alias("text")),
        "query": pairs.select("query_id", F.col("query").alias("text")).distinct(),
    }
    tokenizer = _tokenizer(config, texts)
    tokenizer.save(aside)
    tokenise = Tokenise.of(aside)
    titles = hold(texts["title"].transform(tokenise.ids("title", "title")), held)
    queries = hold(texts["query"].transform(tokenise.ids("query", "query")), held)
    layout = {"files": config.files, "row_group_mb": config.row_group_mb}
    write_petastorm(titles.drop("text"), aside / "titles", keys=["item_group"], **layout)

    log.info("titles/ is written; next the pairs, with the titles that their query's words are cut from")
    examples = hold(as_examples(pairs, queries, titles).transform(tokenise.cut_titles), held)
    write_petastorm(examples.drop("cut"), aside / "pairs", keys=["query_id", "item_group"], **layout)
    log.info("pairs/ is written; next held-out queries and the table of tokens")
    _check_complete(pairs, examples, config)
    _write_plain(as_heldout(pairs, queries), aside / "heldout", ["query_id"])
    if isinstance(tokenizer, WordHashTokenizer):
        cut = examples.select(F.col("cut").alias("text")).where(F.col("text").isNotNull()).distinct()
        found = queries.select("text", F.lit("query").alias("side"))
        found = found.union(titles.select("text", F.lit("title"))).union(cut.select("text", F.lit("title")))
        tokens = hold(found.transform(tokenise.token_features).transform(as_token_table), held)
        refuse_collisions(tokens)
        tokens = tokens.drop("other")
        _write_plain(tokens, aside / ".tokens", ["id"])
        (aside / ".tokens" / "part-00000.parquet").rename(aside / TOKENS_FILE)
        (aside / ".tokens").rmdir()


def as_examples(pairs: DataFrame, queries: DataFrame, titles: DataFrame) -> DataFrame:
    """PAIRS -> one row per (query, item_group) of the split train, with both texts and their token ids."""
    train = (
        pairs.where(F.col("split") == "train")
        .groupBy("query_id", "item_group")
        .agg(
            F.sum("weight").cast("float").alias("weight"),
            F.max("query_logp").cast("float").alias("query_logp"),
            F.max("item_logp").cast("float").alias("item_logp"),
        )
    )
    asked = queries.withColumnRenamed("text", "query_text")
    shown = titles.withColumnRenamed("text", "title_text")
    return train.join(asked, "query_id", how="inner").join(shown, "item_group", how="inner")


def as_token_table(tokens: DataFrame) -> DataFrame:
    """Rows id, features with repeats -> one row per id; ``other`` differs where two tokens share the id."""
    return tokens.groupBy("id").agg(F.min("features").alias("features"), F.max("features").alias("other"))


def refuse_collisions(tokens: DataFrame) -> None:
    """Rows of :func:`as_token_table`.

    Raises:
        InputError: two words share an id.
    """
    clash = tokens.where("features <> other").head()
    if clash is not None:
        raise InputError(
            f"two words of the window share the 64-bit token id {clash['id']} (expected in 3 of a million datasets of 10 "
            "million words): one of them would get the other's vector; leave one out of the click log or the catalogue"
        )


def as_heldout(pairs: DataFrame, queries: DataFrame) -> DataFrame:
    """PAIRS -> one row per held-out query: split, query_id, query (token ids), item_groups that were clicked for it."""
    heldout = pairs.where(F.col("split") != "train").groupBy("split", "query_id")
    groups = heldout.agg(F.sort_array(F.collect_set("item_group")).alias("item_groups"))
    return groups.join(queries, "query_id", how="inner").select("split", "query_id", "query", "item_groups")


def _tokenizer(config: DatasetConfig, texts: Mapping[str, DataFrame]) -> Tokenizer:
    if config.tokenizer == "wordhash":
        return WordHashTokenizer(config.spec())
    every = texts["query"].select("text").union(texts["title"].select("text"))
    drawn = every.distinct().orderBy(F.xxhash64("text"), "text").limit(config.wordpiece_texts)
    return WordPieceTokenizer.train(config.spec(), (row["text"] for row in drawn.toLocalIterator()))


def _check_complete(pairs: DataFrame, examples: DataFrame, config: DatasetConfig) -> None:
    expected = pairs.where(F.col("split") == "train").select("query_id", "item_group").distinct().count()
    found = examples.count()
    if found != expected:
        raise InputError(
            f"pairs/ds={config.ds} holds {expected} pairs to train on, of which {found} have their title in "
            f"catalogue/ds={config.ds}: the catalogue or [text] of warehouse.toml changed since; run "
            f"`labeller pairs --ds {config.ds}` again"
        )


def _write_plain(frame: DataFrame, directory: Path, keys: list[str]) -> None:
    in_files(frame, keys, files=1).sortWithinPartitions(*keys).write.parquet(str(directory))
    name_files(directory)


def _manifest(directory: Path, config: DatasetConfig, inputs: Mapping[str, str]) -> Manifest:
    files: dict[Part, list[DataFile]] = {"pairs": [], "titles": [], "heldout": [], "tokens": [], "tokenizer": []}
    for path in data_files(directory):
        first = path.relative_to(directory).parts[0]
        part: Any = first if first in files else "tokens" if first == TOKENS_FILE else "tokenizer"
        files[part].append(DataFile.of(directory, path))
    return Manifest(
        ds=config.ds,
        token_dtype="int64" if config.tokenizer == "wordhash" else "uint32",
        tokenizer=tokenizer_hash(directory),
        normaliser=config.normaliser.hash,
        spec=asdict(config.spec()),
        inputs=inputs,
        parts={part: tuple(found) for part, found in files.items()},
    )


def _swap_in(aside: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    aside.rename(target)
    shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
