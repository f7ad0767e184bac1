"""What every job's ``main`` does around its own work: logging, settings, exit codes, one summary line."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from etl.config import ConfigT, JobConfig, WarehouseConfig, from_args
from etl.disk import naming_full_disk
from etl.errors import (
    EXIT_FAILED,
    EXIT_GATE_REFUSED,
    EXIT_OK,
    GateRefused,
    InputError,
    StageFailed,
)
from etl.lease import hold_day, lock_directory
from etl.quarantine import naming_bad_files
from etl.redaction import HIDDEN, SECRET, RedactingFormatter, learn, print_bug, redacted
from etl.session import abandon_jobs, remove_checkpoints
from etl.termination import terminated_as_exit
from etl.warehouse import Warehouse

log = logging.getLogger(__name__)

# Written by pyspark's Python side for a page a job; nothing in it that a reader of our log could use.
NOISY_LOGGERS = ("py4j", "petastorm", "pyarrow", "fsspec", "bm25s")


def configure_logging() -> None:
    """One line a record on stderr, secrets left out; called by ``main`` functions only."""
    learn(os.environ)
    lines = logging.StreamHandler()
    lines.setFormatter(RedactingFormatter("%(asctime)s %(levelname).1s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[lines])
    sys.excepthook = print_bug
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def run_job(
    parser: argparse.ArgumentParser,
    config_type: type[ConfigT],
    work: Callable[[ConfigT], Mapping[str, Any] | int],
    argv: Sequence[str] | None,
) -> int:
    """Run ``work`` with its settings; returns the exit code.

    A job that writes for its day holds the lease of that day meanwhile (:mod:`etl.lease`); where another has it, nothing is
    done and the exit code is 75, as where a store does not answer or a disk is full.

    ``work`` returns either the figures of its summary line or an exit code of its own. Bad input, of which a corrupt
    page shows only while Spark reads, exits with 2 and one message, a refused gate with 3; what a stage started and has
    failed with 1; anything else is a bug and keeps its traceback (1). SIGTERM ends it by SystemExit (143), with what it laid
    down put away.
    """
    args = parser.parse_args(argv)
    configure_logging()
    with terminated_as_exit(abandon_jobs):
        return _run(parser.prog, config_type, work, args)


def _run(
    prog: str, config_type: type[ConfigT], work: Callable[[ConfigT], Mapping[str, Any] | int], args: argparse.Namespace
) -> int:
    started = time.monotonic()
    try:
        config = from_args(config_type, args)
        learn(getattr(config, "spark_conf", {}))
        log.info("%s settings, others as --help says: %s", prog, json.dumps(_settings(config)))
        try:
            with naming_full_disk(*_written(config)), naming_bad_files(), _lease(config, prog):
                summary = work(config)
        finally:
            remove_checkpoints()
    except InputError as error:
        print(redacted(f"{prog}: error: {error}"), file=sys.stderr)
        return error.exit_code
    except GateRefused as error:
        print(redacted(f"{prog}: gate refused: {error}"), file=sys.stderr)
        return EXIT_GATE_REFUSED
    except StageFailed as error:
        print(redacted(f"{prog}: failed: {error}"), file=sys.stderr)
        return EXIT_FAILED
    if isinstance(summary, int):
        return summary
    figures = " ".join(f"{key}={value}" for key, value in summary.items())
    log.info("%s done: %s seconds=%.1f", prog, figures, time.monotonic() - started)
    return EXIT_OK


def _lease(config: WarehouseConfig, prog: str) -> AbstractContextManager[object]:
    if not isinstance(config, JobConfig) or not config.writes:
        return nullcontext()
    Warehouse.of(config)  # a misspelt root is no place for a directory of locks
    return hold_day(lock_directory(config), config.ds, f"{prog} --root {config.root} --ds {config.ds}")


def _written(config: WarehouseConfig) -> list[str]:
    """Directories that the job writes."""
    spark = getattr(config, "spark_conf", {}).get("spark.local.dir", "").split(",")
    return [config.root, config.local_dir, config.lock_dir, getattr(config, "checkpoint_dir", ""), *spark]


def _settings(config: Any) -> dict[str, Any]:
    """Settings for the log, of forty those that are not the default: what is refused stands below, and is to be seen.

    Of Spark's own, keys of stores and passwords of metastores stay out.
    """
    settings: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    for key in settings.get("spark_conf", {}):
        if SECRET.search(key):
            settings["spark_conf"][key] = HIDDEN
    return settings
