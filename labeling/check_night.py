"""Check what a night needs before anything expensive starts: the settings of every stage, and all input tables.

Names file, section, table, column and value of everything that is wrong, all at once. Of the settings also what training
would find hours later: files that they name, and an encoder that does not suit the dataset's tokenizer.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etl import check_inputs
from etl.build_dataset import known_tokenizer
from etl.check_inputs import CheckConfig
from etl.config import JobConfig, from_args
from etl.config import arg_parser as config_parser
from etl.dataset_config import DatasetConfig
from etl.errors import InputError, TryLater
from etl.job import run_job
from etl.migrate import require_contracts
from etl.pairs_config import PairsConfig
from etl.warehouse import Warehouse
from labeling.audit import AuditConfig
from labeling.calibrate import CalibrateConfig
from labeling.embed_catalogue import EmbedConfig
from labeling.mine_negatives import MineConfig
from labeling.predict import PredictConfig
from labeling.publish import PublishConfig
from labeling.relate_config import RelateConfig
from labeling.report.__main__ import ReportConfig
from labeling.retention import MaintainConfig
from model.bundle import load_bundle
from model.launch import CHECKOUT
from model.promote import PromoteConfig
from model.train_config import TrainConfig
from model.train_due import TrainDueConfig

log = logging.getLogger(__name__)

STAGES: tuple[type[JobConfig], ...] = (
    PairsConfig,
    DatasetConfig,
    TrainDueConfig,
    MineConfig,
    TrainConfig,
    CalibrateConfig,
    PromoteConfig,
    EmbedConfig,
    PredictConfig,
    AuditConfig,
    PublishConfig,
    RelateConfig,
    ReportConfig,
    MaintainConfig,
)


class NightConfig(CheckConfig):
    """Settings of the command: those of the input tables' check, and what the night's other commands are told by flags."""

    hostfile: str = ""
    """As `labeller train` will get it; empty: as [train] says."""


def arg_parser() -> argparse.ArgumentParser:
    return config_parser(NightConfig, "labeller check", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), NightConfig, run, argv)


def run(config: NightConfig) -> Mapping[str, Any]:
    """Check settings, then our own tables, then inputs; returns the figures of the summary.

    Raises:
        InputError: everything that stands in the way of a run.
    """
    check_settings(config)
    require_contracts(Warehouse.of(config))
    return check_inputs.run(config)


def check_settings(config: NightConfig) -> None:
    """Read ``ROOT/warehouse.toml`` as every stage of the night will, and look at the files that training needs.

    Raises:
        InputError: unknown sections, unknown keys and values out of range, of all stages; files that cannot be used.
    """
    problems: dict[str, None] = {}
    hostfile = {"hostfile": config.hostfile} if config.hostfile else {}
    made: dict[type[JobConfig], Any] = {}
    for stage in STAGES:
        try:
            made[stage] = from_args(stage, argparse.Namespace(config=None, root=config.root, ds=config.ds, **hostfile))
        except TryLater:
            raise
        except InputError as error:
            problems |= dict.fromkeys(error.problems or [str(error)])
    if {TrainConfig, DatasetConfig} <= made.keys():
        problems |= dict.fromkeys(training_problems(made[TrainConfig], made[DatasetConfig]))
    if problems:
        raise InputError.of(list(problems), heading=f"{config.root}/warehouse.toml refused:")


def training_problems(train: TrainConfig, dataset: DatasetConfig) -> list[str]:
    """What training would find hours later: of hostfile, weights to start from, DeepSpeed's settings and the tokenizer."""

    def hosts() -> None:
        if found := train.hosts():
            found.require_means([Path(sys.executable), CHECKOUT, Warehouse.of(train).checkpoints])

    def teacher() -> None:
        if train.distil_from:
            load_bundle(Path(train.distil_from).expanduser())

    checks: list[Callable[[], object]] = [hosts, train.deepspeed_settings, teacher, lambda: require_fit(train, dataset)]
    problems = []
    for check in checks:
        try:
            check()
        except InputError as error:
            problems.append(str(error).replace("\n", "\n    "))
    return problems


def require_fit(train: TrainConfig, dataset: DatasetConfig) -> None:
    """See that the encoder to train suits the tokenizer that the dataset will have.

    Raises:
        InputError: it does not, or what it starts from or the tokenizer cannot be read.
    """
    tokenizer = known_tokenizer(dataset)
    spec = tokenizer.spec if tokenizer else dataset.spec()
    with tempfile.TemporaryDirectory(prefix="tokenizer-") as directory:
        if tokenizer is not None:
            tokenizer.save(Path(directory))
            train = train.with_start(asdict(spec), Path(directory))
        elif train.init_from == "champion":
            log.warning(
                "[train] init_from is champion, but [dataset] tokenizer = %r is trained anew for each dataset, so trainings "
                'start from random weights: set [dataset] tokenizer_from = "champion"', dataset.tokenizer,
            )  # fmt: skip
            train = train.model_copy(update={"init_from": ""})
        elif (start := train.pretrained()) is not None:
            raise InputError(
                f"[train] init_from starts from {start.directory}, whose tokenizer the dataset must have, but [dataset] "
                f'tokenizer = "{dataset.tokenizer}" trains another: set [dataset] tokenizer_from = "{train.init_from}"'
            )
        train.preset_for(asdict(spec), Path(directory))


if __name__ == "__main__":
    sys.exit(main())
