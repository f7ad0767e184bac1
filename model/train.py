"""Train an encoder on the dataset of a day, and leave a bundle as the candidate for promotion."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from etl import config as settings
from etl.dataset import Manifest, verify
from etl.durable import mend_swap, read_json
from etl.errors import InputError, StageFailed, TryLater
from etl.job import run_job
from etl.tokenizer import tokenizer_hash
from etl.warehouse import Warehouse
from model import launch, worker
from model.bundle import CANDIDATE, CHAMPION, METRICS_FILE, champion, foreign, set_alias
from model.bundle import verify as verify_bundle
from model.checkpoints import Checkpoints
from model.distillation import Teacher
from model.hosts import ReachedHosts
from model.leftovers import remove_leftovers, running
from model.precision import choose
from model.ranks import Ranks
from model.shares import require_enough, smallest_share
from model.tracking import MLflow
from model.train_config import TrainConfig

log = logging.getLogger(__name__)


PARTS: tuple[Literal["pairs", "titles"], ...] = ("pairs", "titles")

LEAST_USED = 0.95
"""Share of the rows below which a warning says that the ranks' files are unequal; equal ones differ by rounding."""


class TrainingFailed(StageFailed):
    """The launcher came back with an error; what the ranks said stands above it."""


def arg_parser() -> argparse.ArgumentParser:
    return settings.arg_parser(TrainConfig, "labeller train", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), TrainConfig, run, argv)


def run(config: TrainConfig) -> Mapping[str, Any]:
    """Check everything that can be known before, launch the ranks, then point ``candidate`` to the bundle they made.

    Raises:
        InputError: the dataset, the preset or DeepSpeed's settings cannot be used.
        TrainingFailed: a rank failed.
    """
    warehouse = Warehouse.of(config)
    hosts = config.hosts()
    ranks = hosts.ranks if hosts else config.where()[1]
    if config.writes:
        mend_swap(config.dataset)
    manifest = verify(config.dataset)
    if config.init_from == CHAMPION and (live := champion(warehouse)) is not None and not foreign(live):
        verify_bundle(live)  # of one that is whole and does not fit, training may start from random weights
    config = config.with_start(manifest.spec, config.dataset)
    chosen = config.chosen_preset(manifest)
    for part in PARTS if chosen.crops else PARTS[:1]:
        used = ranks * smallest_share(manifest, part, ranks) / manifest.rows(part)
        if used < LEAST_USED:
            log.warning(
                "%s: %d files on %d ranks leave %.0f%% of the rows out of each epoch; "
                "build the dataset with --ranks a multiple of these",
                part, len(manifest.files(part)), ranks, 100 * (1 - used),
            )  # fmt: skip
    config.deepspeed_settings()
    Teacher.of(config.distil_from, manifest, config.distil_weight, None, "cpu")
    if config.hard_share and not manifest.hard_negatives and not can_mine(warehouse, manifest):
        log.warning("hard_share is %g, but no champion could mine this dataset: trained without", config.hard_share)
        config = config.model_copy(update={"hard_share": 0.0})
    config.reader(chosen).hard.require(manifest)
    if config.batch:
        require_enough(manifest, config.batch, ranks)
    if uri := config.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", ""):
        MLflow(uri, "").experiment()  # refuses an address with a password, also the variable's
        config = config.model_copy(update={"mlflow_tracking_uri": uri})  # the variable does not reach other machines
    warehouse.checkpoints.mkdir(exist_ok=True)
    with running(warehouse.checkpoints, config.ds) as scratch:
        by_ssh = hosts if config.node_rank is None else None
        reached = by_ssh.meet([Path(sys.executable), launch.CHECKOUT, scratch], config.device) if by_ssh else None
        pinned = config.model_copy(update=_pinned(config, reached))
        where = f"{len(hosts.slots)} hosts" if hosts else "this machine"
        log.info(
            "training %r on %d rank%s (%s) of %s by %s",
            config.preset, ranks, "s" * (ranks > 1), pinned.device, where, config.engine,
        )  # fmt: skip
        made = _launch(pinned, scratch, ranks, reached)
        if made is None:
            return {"node": config.node_rank}
        bundle = warehouse.bundle(made)
    verify_bundle(bundle)
    set_alias(warehouse, CANDIDATE, bundle)
    # Not before: a command that is killed earlier goes on from the last of them when it is started again.
    Checkpoints(warehouse.training_checkpoints(config.ds), Ranks()).remove()
    remove_leftovers(warehouse.checkpoints, config.ds)
    metrics = read_json(bundle / METRICS_FILE)
    figures = {f"{split}_{k}": v for split, row in metrics["heldout"].items() for k, v in row.items()}
    return {"bundle": bundle.name, **figures, "path": bundle}


def can_mine(warehouse: Warehouse, manifest: Manifest) -> bool:
    """Whether `labeller mine` has a champion to find hard negatives with: one that has the dataset's tokenizer."""
    live = champion(warehouse)
    return live is not None and not foreign(live) and tokenizer_hash(live) == manifest.tokenizer


def _pinned(config: TrainConfig, reached: ReachedHosts | None) -> dict[str, Any]:
    """What is decided here for all ranks: another machine may have another processor, and runs in another directory."""
    device = reached.device if reached else config.where()[0]
    precision = choose(config.precision, device, amx=reached.amx if reached else None)
    deepspeed_config = str(Path(config.deepspeed_config).resolve()) if config.deepspeed_config else ""
    files = Warehouse.of(config).files  # ranks touch no table, so they need no key of a store
    named = {"init_from": config.init_from, "distil_from": config.distil_from}
    found = {name: str(Path(path).expanduser().resolve()) if path else "" for name, path in named.items()}
    paths = {"root": str(files), "local_dir": "", "deepspeed_config": deepspeed_config, **found}
    return {**paths, "device": device, "precision": precision}


def _launch(config: TrainConfig, scratch: Path, ranks: int, reached: ReachedHosts | None) -> str | None:
    """Train under the launcher; returns the id of the bundle, or None on a machine that rank 0 is not on."""
    file = scratch / "settings.json"
    file.write_text(config.model_dump_json(), encoding="utf-8")
    code = _exit_code(config, ["--settings", str(file)], ranks, reached)
    refused, later, result = (scratch / name for name in (worker.REFUSED_FILE, worker.LATER_FILE, worker.RESULT_FILE))
    # Of several ranks' exit codes a launcher passes on one, which need not be the cause.
    if refused.exists():
        raise InputError(f"a training rank refused its input: {refused.read_text(encoding='utf-8')}")
    if later.exists():
        raise TryLater(f"a training rank could not go on: {later.read_text(encoding='utf-8')}")
    # The launcher comes back with 0 where a signal ended it: only the result proves that there is one.
    if config.node_rank and not code:
        return None
    if code or not result.exists():
        killed = f" (a rank was killed by signal {256 - code})" if 192 < code < 256 else ""
        raise TrainingFailed(
            f"{config.engine} ended with exit code {code}{killed} and no bundle; what the ranks said stands above. Started "
            f"again, it goes on from its last whole checkpoint, if there is one (save_every: {config.save_every} steps)"
        )
    return str(json.loads(result.read_text(encoding="utf-8"))["bundle"])


def _exit_code(config: TrainConfig, arguments: Sequence[str], ranks: int, reached: ReachedHosts | None) -> int:
    """Of the worker, by whatever starts it."""
    scratch = Path(arguments[-1]).parent
    if reached:
        return launch.run_on_hosts("model.worker", arguments, reached, scratch)
    if config.node_rank is not None and (hosts := config.hosts()):
        return launch.run_as_node("model.worker", arguments, hosts, config.node_rank, config.device)
    if config.engine == "torch":
        argv = launch.torch_command("model.worker", arguments, ranks=ranks, directory=scratch)
    else:
        argv = launch.command("model.worker", arguments, ranks=ranks)
    return launch.run_watched(argv, launch.environment(ranks, config.device, local=True))


if __name__ == "__main__":
    sys.exit(main())
