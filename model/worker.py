"""One training rank: what a launcher starts. Rank 0 evaluates the result and writes the bundle."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from pydantic import ValidationError
from torch import distributed as dist
from torch.distributed import distributed_c10d as c10d

from etl.code import code_version, revision
from etl.dataset import ROW_PARTS, Manifest, verify
from etl.disk import naming_full_disk
from etl.errors import EXIT_BUG, EXIT_OK, InputError, TryLater
from etl.job import configure_logging
from etl.tokenizer import load_tokenizer
from etl.warehouse import Warehouse
from model.bundle import write_bundle
from model.checkpoints import Checkpoints
from model.engines import EngineName
from model.evaluate import evaluate
from model.fit import Fitted, draw, fit
from model.model_card import write_card
from model.ranks import Ranks
from model.rendezvous import meet
from model.row_groups import ReaderStalled
from model.tracking import MLflow, TensorBoard, Tracker, closing_trackers
from model.train_config import TrainConfig
from model.warm_up import build_beside_environment

log = logging.getLogger("model.worker")

RESULT_FILE = "result.json"
POLL_SECONDS = 0.2
SLOWEST_HASHING = 10e6
"""Bytes a second; a network drive that gives less is taken for one that hangs."""

_HERE = "labeller/ranks that have verified their machine's dataset"

REFUSED_FILE = "refused"
"""What a rank has against its input, left beside the settings: no launcher passes on every rank's exit code."""

LATER_FILE = "later"
"""The same of what may pass, as a full disk."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code, which the launcher passes on."""
    parser = argparse.ArgumentParser(prog="model.worker", description=__doc__, allow_abbrev=False)
    parser.add_argument("--settings", type=Path, required=True, help="JSON file that `labeller train` wrote")
    args = parser.parse_args(argv)
    configure_logging()
    if "LOCAL_RANK" in os.environ:
        threading.Thread(target=_end_with_launcher, daemon=True).start()
    try:
        with naming_full_disk(args.settings.parent):
            run(_settings(args.settings), args.settings.parent)
    except InputError as error:
        log.error("%s", error)
        file = LATER_FILE if isinstance(error, TryLater) else REFUSED_FILE
        args.settings.with_name(file).write_text(str(error), encoding="utf-8")
        return error.exit_code
    except ReaderStalled as error:
        _end(str(error))  # the interpreter would wait for petastorm's stuck threads, and the other ranks for this one
    return EXIT_OK


def _settings(file: Path) -> TrainConfig:
    try:
        return TrainConfig.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise InputError(f"settings {file} that `labeller train` wrote: {error}") from None


def _end_with_launcher() -> None:
    """End this rank when standard input does: `labeller train` holds its other end, by way of ssh on another host.

    A launcher that was killed ends nothing by itself, and sshd leaves running what it started.
    """
    while os.read(0, 1024):  # the bare descriptor: at exit Python cannot take a buffer's lock from this thread
        pass
    _end("the launcher is gone, and this rank with it")


def leave(code: int) -> NoReturn:
    """End this process, whose work is done and written, without the interpreter's teardown.

    There, process groups that DeepSpeed still refers to may be destroyed while their threads run, which aborts the process
    ("terminate called without an active exception", once in some thousand runs): the launcher would call a finished training
    failed.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end(why: str) -> None:
    """End this process from any of its threads, whatever the others do."""
    log.error("%s", why)
    logging.shutdown()
    os._exit(EXIT_BUG)


@contextmanager
def ends_after(minutes: float, why: str) -> Iterator[None]:
    """End this rank with ``why``, whatever it waits for, if the context is not over by then."""
    timer = threading.Timer(60 * minutes, _end, [why])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def run(config: TrainConfig, scratch: Path) -> None:
    """Join the other ranks, train with them, and on rank 0 leave a bundle and its id in ``scratch``.

    Checkpoints stay until the bundle has a name, which `labeller train` gives it.
    """
    device, _ = config.where()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device_name = f"cuda:{local_rank}" if device == "cuda" else "cpu"
    minutes = 2 * config.timeout_minutes
    # The process group's own time-out is shorter, but DeepSpeed builds its op before it joins one, and waits for ever for
    # the lock that a killed build has left.
    why = f"the other ranks were not met in {minutes:g} minutes (a fresh `lock` below .venv/torch_extensions stops builds)"
    with ends_after(minutes, why):
        ranks = join(device, config.timeout_minutes, config.engine)
    if ranks.rank:
        logging.getLogger().setLevel(logging.WARNING)
    # Hashes are compared once a machine, before anything of the dataset is unpickled there.
    manifest = Manifest.read(config.dataset)
    minutes = 2 * config.timeout_minutes + hashing_minutes(config.dataset)
    with ends_after(minutes, f"not every rank has verified the dataset in {minutes:.1f} minutes: is one or its host gone?"):
        if local_rank == 0:
            verify(config.dataset)
        if ranks.world > 1:
            wait_unhurried(c10d._get_default_store(), ranks.world)
    checkpoints = Warehouse.of(config).training_checkpoints(config.ds)
    if not config.resume:
        Checkpoints(checkpoints, ranks).remove()
        _wait(ranks)
    trackers = _trackers(config) if ranks.rank == 0 else []
    with closing_trackers(trackers):
        fitted = fit(config, manifest, ranks, device_name, checkpoints, trackers)
        _wait(ranks)
        if dist.is_initialized():
            dist.destroy_process_group()
        if ranks.rank == 0:
            torch.set_num_threads(os.cpu_count() or 1)  # the other ranks are gone
            path = finish(config, manifest, fitted, device_name, trackers)
            (scratch / RESULT_FILE).write_text(json.dumps({"bundle": path.name}), encoding="utf-8")


def _wait(ranks: Ranks) -> None:
    if ranks.world > 1:
        dist.barrier()


def wait_unhurried(store: dist.Store, world: int) -> None:
    """Wait until all ranks are here, however long one of them hashes the dataset.

    A barrier ends after the process group's time-out: 10 minutes are 60 GB at 100 MB/s. That a rank is gone the launcher
    tells; where each machine has its own, and its host is cut off, nobody does: the caller bounds the wait.
    """
    store.add(_HERE, 1)
    while store.add(_HERE, 0) < world:
        time.sleep(POLL_SECONDS)


def hashing_minutes(dataset: Path) -> float:
    """Time for hashing a dataset at SLOWEST_HASHING."""
    return sum(file.stat().st_size for file in dataset.rglob("*") if file.is_file()) / SLOWEST_HASHING / 60


def _trackers(config: TrainConfig) -> list[Tracker]:
    found: list[Tracker] = [TensorBoard(Warehouse.of(config).training_figures(config.ds))]
    if config.mlflow_tracking_uri:
        found.append(MLflow(config.mlflow_tracking_uri, f"ds={config.ds} {config.preset}"))
    return found


def join(device: str, timeout_minutes: float, engine: EngineName = "deepspeed") -> Ranks:
    """Meet the other ranks; a rank that never comes is an error after the timeout, not a wait for ever."""
    # DeepSpeed 0.19 calls collectives that torch 2.13 has renamed; petastorm's are silenced where it reads.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning, module="deepspeed")
    timeout = dt.timedelta(minutes=timeout_minutes)
    backend = "nccl" if device == "cuda" else "gloo"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if engine == "torch":
        meet(backend, timeout)
        return Ranks(dist.get_rank(), dist.get_world_size())
    build_beside_environment()
    import deepspeed  # takes seconds, and sets up logging of its own

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        # Only inference uses it, and without a compiler the attempt to build it ends the rank.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # DeepSpeed's own groups, which reduce the gradients, take torch's default: 30 minutes of gloo.
    c10d.default_pg_timeout = c10d.default_pg_nccl_timeout = timeout
    meet(backend, timeout)
    deepspeed.init_distributed(dist_backend=backend, timeout=timeout, verbose=False)  # takes the group that is there
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    if device == "cpu":
        dist.barrier()  # now every rank has opened the others' buffers
        _unlink_shared_buffer(ranks.rank)
    return ranks


def _unlink_shared_buffer(rank: int) -> None:
    """Take the name off a rank's 66 MiB of shared memory, so that it goes with the process, however that ends.

    DeepSpeed 0.19's CPU collectives leave it in /dev/shm for good: seventy trainings held 9.4 GB.
    """
    place = f"{os.getuid()}_{os.environ['MASTER_ADDR']}_{os.environ['MASTER_PORT']}_{rank}"
    Path(f"/dev/shm/deepspeed_allreduce_buffer_{place}").unlink(missing_ok=True)  # noqa: S108 (DeepSpeed's choice)


def finish(config: TrainConfig, manifest: Manifest, fitted: Fitted, device: str, trackers: Sequence[Tracker] = ()) -> Path:
    """Evaluate a trained encoder and write its bundle; returns the bundle's path."""
    encoder = fitted.encoder
    passes = "by the random start and by what was trained" + ", then by the weights it started from" * bool(config.init_from)
    log.info("training is over; next the held-out queries, %s", passes)
    untrained = evaluate(draw(encoder.config, config.seed), config.dataset, manifest, device, "random start").figures()
    answered = evaluate(encoder, config.dataset, manifest, device, "trained")
    heldout = answered.figures()
    for split, figures in heldout.items():
        log.info("%s: %s (untrained %s)", split, figures, untrained[split])
    for tracker in trackers:
        tracker.log(fitted.curve.step, _by_name(heldout, "heldout") | _by_name(untrained, "untrained"))
    metrics: dict[str, Any] = {
        "heldout": heldout,
        "untrained": untrained,
        "slices": answered.slices(),
        "languages": dict(manifest.languages),
        "scripts": dict(manifest.scripts),
        "counts": {part: manifest.rows(part) for part in ROW_PARTS},
        "cleaning": dict(manifest.cleaning),
        "settings": dict(fitted.settings),
        "curve": fitted.curve.points,
        "seconds": round(fitted.curve.seconds, 1),
        "data_seconds": round(fitted.curve.data_seconds, 1),
    }
    lineage: dict[str, Any] = {
        "dataset": manifest.ds.isoformat(),
        "dataset_digest": manifest.digest,
        "tokenizer": manifest.tokenizer,
        "normaliser": manifest.normaliser,
        "inputs": dict(manifest.inputs),
        "code": f"{code_version()} {revision()}".strip(),
    }
    if (pretrained := config.pretrained()) is not None:
        lineage["init"] = {
            "directory": str(pretrained.directory),
            "digest": pretrained.digest,
            "licence": pretrained.licence,
        }
        start = draw(encoder.config, config.seed)
        pretrained.load_into(start)
        metrics["initial"] = evaluate(start, config.dataset, manifest, device, "pretrained start").figures()
        for split, figures in metrics["initial"].items():
            log.info("%s, as it started: %s", split, figures)
    tokenizer = load_tokenizer(config.dataset)
    bundles = Warehouse.of(config).bundles
    path = write_bundle(bundles, encoder.cpu(), tokenizer, ds=config.ds, metrics=metrics, lineage=lineage)
    write_card(path)
    return path


def _by_name(figures: Mapping[str, Mapping[str, float]], what: str) -> dict[str, float]:
    """As heldout/valid/recall_at_10: MLflow takes no @ in a name."""
    return {
        f"{what}/{split}/{name.replace('@', '_at_')}": value for split, row in figures.items() for name, value in row.items()
    }


if __name__ == "__main__":
    leave(main())
