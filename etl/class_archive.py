"""Set-up step: an archive of the classes that Spark and Delta load, which a local job's Java maps instead of reading jars.

Java's own application class-data sharing (JEP 350): a short session that does what a stage does is run once, and what it
loaded is written as Java has it in memory, verified. Every stage of a night starts a Java of its own and loads some
17,000 classes; from the archive a session that wrote and read a small Delta table took 31 to 34 CPU seconds, not 43 to 47.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from etl.config import SparkConfig
from etl.errors import EXIT_OK
from etl.spark_stores import jars_directory

ARCHIVE = "classes.jsa"
SIZE = "classes.json"
"""Beside the archive, its bytes: Java dies of one that was cut short."""


def archive() -> Path | None:
    """The archive, if it is whole; None where set-up has made none."""
    file = jars_directory() / ARCHIVE
    try:
        whole = json.loads((jars_directory() / SIZE).read_text(encoding="utf-8"))["bytes"] == file.stat().st_size
    except (OSError, ValueError, KeyError):
        return None
    return file if whole else None


def java_options(file: Path) -> list[str]:
    """What makes Java take it. One that another Java or another set of jars made is left alone, without a word."""
    return [f"-XX:SharedArchiveFile={file}", "-Xlog:cds*=off"]


def make(target: Path) -> None:
    """Run :func:`work` in a Java that lays down its classes when it ends, and put the archive in its place.

    Raises:
        RuntimeError: it failed, with what it said.
    """
    with tempfile.TemporaryDirectory(dir=target) as directory:
        file = Path(directory) / ARCHIVE
        done = subprocess.run(
            [sys.executable, "-m", "etl.class_archive", "--work", directory],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )  # ends when its Java has, which holds the same pipe
        if done.returncode or not file.is_file():
            raise RuntimeError("\n".join(done.stdout.strip().splitlines()[-8:]))
        (target / SIZE).unlink(missing_ok=True)
        file.replace(target / ARCHIVE)
        (target / SIZE).write_text(json.dumps({"bytes": (target / ARCHIVE).stat().st_size}) + "\n", encoding="utf-8")


def work(directory: Path) -> None:
    """What stages have in common: Parquet, windows, joins, Arrow to and from Python, a Delta table's day, a merge."""
    import pyarrow as pa
    from delta.tables import DeltaTable
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    from etl.session import local_java, settle, start_session

    options = [*local_java(archive=None), f"-XX:ArchiveClassesAtExit={directory / ARCHIVE}", "-Xlog:cds*=off"]
    conf = {"spark.driver.extraJavaOptions": " ".join(options)}
    spark = start_session("class archive", SparkConfig(root=str(directory), spark_conf=conf))

    def same(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches

    rows = spark.range(1_000).select("id", (F.col("id") % 7).cast("int").alias("part"), F.hash("id").alias("hash"))
    rows = rows.withColumns({"text": F.sha2(F.col("id").cast("string"), 256), "at": F.current_timestamp()})
    rows.write.partitionBy("part").parquet(str(directory / "parquet"))
    read = settle(spark.read.parquet(str(directory / "parquet")).where("hash is not null"))
    ranked = read.withColumn("rank", F.row_number().over(Window.partitionBy("part").orderBy(F.desc("hash"), "id")))
    grouped = ranked.groupBy("part").agg(
        F.count("*").alias("n"), F.collect_list("text").alias("texts"), F.max("at").alias("at")
    )
    joined = ranked.join(grouped.select("part", "n"), "part").join(F.broadcast(read.select("id")), "id", "left_semi")
    mapped = joined.select("id", "part", "text", "n").mapInArrow(same, "id long, part int, text string, n long")
    table = str(directory / "delta")
    mapped.write.format("delta").partitionBy("part").save(table)
    mapped.where("part = 3").write.format("delta").mode("overwrite").option("replaceWhere", "part = 3").save(table)
    changed = DeltaTable.forPath(spark, table).alias("live").merge(mapped.where("id < 100").alias("new"), "live.id = new.id")
    changed.whenMatchedUpdate("live.n = new.n", {"n": "new.n + 1"}).whenNotMatchedInsertAll().execute()
    DeltaTable.forPath(spark, table).history(1).collect()
    spark.read.format("delta").load(table).orderBy("id").toArrow()
    spark.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Make the archive unless it is there, or say why it cannot be made; jobs go without it, so the exit code is 0."""
    parser = argparse.ArgumentParser(prog="python -m etl.class_archive", description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.work:
        work(args.work)
    elif archive() is None:
        try:
            make(jars_directory())
        except (OSError, RuntimeError) as error:
            print(f"set-up: no archive of Java's classes, so each Spark job starts slower: {error}", file=sys.stderr)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
