"""The Spark session of a job: local by default, a cluster by configuration."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import class_archive, scratch, table_lock
from etl.config import SparkConfig
from etl.errors import InputError
from etl.lease import lock_directory
from etl.spark_stores import jars_directory, schemes_of, store_jars, store_settings

LOGGING = Path(__file__).with_name("log4j2.properties")
"""Where the driver's loggers are set."""
_LOGGED = f"-Dlog4j2.configurationFile={LOGGING.as_uri()}"


def delta_jars() -> list[Path]:
    """Delta's jars as resolved at set-up.

    Raises:
        InputError: set-up did not run.
    """
    jars = sorted(jars_directory().glob("*.jar"))
    if not any(jar.name.startswith("io.delta_delta-spark") for jar in jars):
        raise InputError(f"no Delta jars under {jars_directory()}: run `make setup` (needs Maven Central once)")
    return jars


def start_session(app: str, config: SparkConfig) -> SparkSession:
    """A classic Spark session with Delta, and with Hive where an input is a table of its metastore; the caller stops it.

    Everything is UTC. Adaptive execution stays on and the number of shuffle partitions is left alone:
    switched off, with 200 partitions, the same job took 4.6 times as long.
    """
    # Otherwise workers take the system's Python, which lacks our libraries.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    if config.master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    stores = schemes_of(config)
    settings = store_settings(stores) | {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.jars": ",".join(map(str, [*delta_jars(), *store_jars(stores)])),
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.memory": config.driver_memory,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "true" if sys.stderr.isatty() else "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Off (Spark 4.0's default), each persisted frame keeps 200 partitions however small it is: 200 Python tasks for 2.
        "spark.sql.optimizer.canChangeCachedPlanOutputPartitioning": "true",
        "spark.sql.files.ignoreCorruptFiles": "false",  # true lost 250 of 2,000 rows without a word
        # Off (Parquet's default), 321 of 400 single bits that were flipped in a file gave other rows without an error.
        "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
        # Tables here are small beside a cluster's; 50 log-replay tasks cost a local run seconds a read.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.cleaner.referenceTracking.cleanCheckpoints": "true",
        table_lock.DIRECTORY: str(lock_directory(config)),
    }
    java = [_LOGGED]
    if config.master.startswith("local"):
        java = local_java(class_archive.archive())
    settings["spark.driver.extraJavaOptions"] = " ".join(java)
    one_java = config.master == "local" or config.master.startswith("local[")
    if one_java and "spark.driver.extraClassPath" not in config.spark_conf:
        # All is one Java: what is on its own class path is loaded from the archive, and is not copied for an executor.
        settings["spark.driver.extraClassPath"] = os.pathsep.join(map(str, delta_jars()))
        settings["spark.jars"] = ",".join(map(str, store_jars(stores)))
    own = _own_directory()
    if own:
        # Spark's local directories follow it, unless the user names some. An option of the user's own leaves it in force.
        settings["spark.driver.defaultJavaOptions"] = shlex.quote(f"-Djava.io.tmpdir={own}")
    if any(source.table for source in config.inputs.values()):
        settings["spark.sql.catalogImplementation"] = "hive"  # what enableHiveSupport() sets
    settings |= config.spark_conf
    builder = SparkSession.builder.appName(app).master(config.master)
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")  # also where the driver's Java has options of its own
    _leave_failures_to_the_driver(spark)
    if own:
        _remove_with_java(spark, str(own))
    if config.checkpoint_dir:
        spark.sparkContext.setCheckpointDir(config.checkpoint_dir)
        place = urlsplit(spark.sparkContext._jsc.sc().getCheckpointDir().get())
        if place.scheme in ("", "file"):
            _remove_with_java(spark, unquote(place.path))
    return spark


def _own_directory() -> Path | None:
    """A directory for what the Java of this process keeps on disk; None if Java runs already."""
    if SparkContext._gateway is not None or "PYSPARK_GATEWAY_PORT" in os.environ:
        return None
    return scratch.directory_of_process("spark")


def _remove_with_java(spark: SparkSession, directory: str) -> None:
    """Have Java remove a directory when it ends, which it does with us, however we end."""
    jvm: Any = spark.sparkContext._jvm
    jvm.org.apache.spark.util.ShutdownHookManager.registerShutdownDeleteDir(jvm.java.io.File(directory))


def abandon_jobs() -> None:
    """Cancel what Spark runs and give up the answer that this thread waits for, so that it may ask for other things.

    For handlers of signals: what they raise leaves an answer on the way, which the next question would take for its own.
    """
    context: Any = SparkContext._active_spark_context
    if context is None:
        return
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # a page a question, where Java has ended by the same signal
    with suppress(Py4JError):
        context._gateway._gateway_client._create_new_connection()
        context.cancelAllJobs()


def local_java(archive: Path | None) -> list[str]:
    """Options of Java for a local job.

    Such a job is over before the optimising compiler has paid for itself: pairs of 320,000 clicks took 92 s of CPU with
    it, 48 s without. Hours of local work want another spark.driver.extraJavaOptions. Without that compiler Java keeps 48 MB
    of compiled code, which a session of an hour fills: its sweeper then took as much CPU as the work. And it collects all
    garbage each time that the classes outgrow a first 21 MB: they take ten times that.
    """
    options = [_LOGGED, "-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=240m", "-XX:+UseParallelGC"]
    options.append("-XX:MetaspaceSize=256m")
    return options + (class_archive.java_options(archive) if archive else [])


def _leave_failures_to_the_driver(spark: SparkSession) -> None:
    """Silence what local executors say of a failed task: sixty lines of Java, all of which the exception holds too."""
    jvm: Any = spark.sparkContext._jvm
    log4j = jvm.org.apache.logging.log4j
    log4j.core.config.Configurator.setLevel("org.apache.spark.executor.Executor", log4j.Level.OFF)


def remove_checkpoints() -> None:
    """Delete what :func:`settle` wrote to the checkpoint directory: it holds queries of few and hashes of users.

    Spark itself removes a checkpoint when its frame is garbage, and leaves those of which it is told too late.
    """
    context: Any = SparkContext._active_spark_context
    if context is None or not context._jsc.sc().getCheckpointDir().isDefined():
        return
    # Spark makes one of its own, with a random name, in the directory that it is given.
    path = context._jvm.org.apache.hadoop.fs.Path(context._jsc.sc().getCheckpointDir().get())
    path.getFileSystem(context._jsc.hadoopConfiguration()).delete(path, True)
    context._jsc.sc().setCheckpointDir(None)


def hold(frame: DataFrame, held: ExitStack) -> DataFrame:
    """The frame, kept by Spark until ``held`` closes."""
    held.callback(frame.persist().unpersist)
    return frame


def settle(frame: DataFrame) -> DataFrame:
    """The frame, computed now and without its plan, for what is built upon several times.

    The plan of a persisted frame still counts: with a dozen of them nested in each other the driver took 3 s to describe
    each of fifty jobs, and with a frame made of itself twelve times over, 4 GB. Where Spark has a checkpoint directory
    the rows go there and outlive a lost executor; else they are kept as persisted ones are, and a lost executor ends
    the job, for the scheduler to start it again.
    """
    # New names for the same columns: a checkpoint keeps the identities of its columns, and a join with what it was made
    # from then fails in Spark 4.0.5's analyser where adaptive execution is off.
    frame = frame.select(*(F.col(name).alias(name) for name in frame.columns))
    if frame.sparkSession.sparkContext._jsc.sc().getCheckpointDir().isDefined():
        return frame.checkpoint()
    return frame.localCheckpoint()
