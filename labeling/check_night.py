"""Check what a night needs before anything expensive starts: the settings of every stage, and all input tables.

Names file, section, table, column and value of everything that is wrong, all at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etl import check_inputs
from etl.build_dataset import DatasetConfig
from etl.check_inputs import CheckConfig
from etl.config import JobConfig, from_args
from etl.config import arg_parser as config_parser
from etl.errors import InputError
from etl.job import run_job
from etl.pairs_config import PairsConfig
from labeling.audit import AuditConfig
from labeling.calibrate import CalibrateConfig
from labeling.embed_catalogue import EmbedConfig
from labeling.predict import PredictConfig
from labeling.publish import PublishConfig
from labeling.report import ReportConfig
from model.promote import PromoteConfig
from model.train_config import TrainConfig
from model.train_due import TrainDueConfig

STAGES: tuple[type[JobConfig], ...] = (
    PairsConfig,
    DatasetConfig,
    TrainDueConfig,
    TrainConfig,
    CalibrateConfig,
    PromoteConfig,
    EmbedConfig,
    PredictConfig,
    AuditConfig,
    PublishConfig,
    ReportConfig,
)


def arg_parser() -> argparse.ArgumentParser:
    return config_parser(CheckConfig, "labeller check", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), CheckConfig, run, argv)


def run(config: CheckConfig) -> Mapping[str, Any]:
    """Check settings, then inputs; returns the figures of the summary.

    Raises:
        InputError: everything that stands in the way of a run.
    """
    check_settings(config)
    return check_inputs.run(config)


def check_settings(config: CheckConfig) -> None:
    """Read ``ROOT/warehouse.toml`` as every stage of the night will.

    Raises:
        InputError: unknown sections, unknown keys and values out of range, of all stages.
    """
    problems: dict[str, None] = {}
    for stage in STAGES:
        try:
            from_args(stage, argparse.Namespace(config=None, root=config.root, ds=config.ds))
        except InputError as error:
            problems |= dict.fromkeys(error.problems or [str(error)])
    if problems:
        raise InputError.of(list(problems), heading=f"{config.root}/warehouse.toml refused:")


if __name__ == "__main__":
    sys.exit(main())
