"""Say whether a night has to train: exit code 0 if so, 99 if not (Airflow skips on 99).

It has to if the last training is a week old, or if shoppers ask what that training did not know.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from etl import config as settings
from etl.errors import EXIT_NOTHING_DUE
from etl.job import run_job
from etl.text import Normaliser
from etl.text_config import TextConfig
from etl.tokenizer_spec import read_spec
from etl.warehouse import Warehouse
from model.bundle import CANDIDATE, CHAMPION, alias, candidate, champion, foreign
from model.input_drift import new_words

log = logging.getLogger(__name__)

TEXT_SETTINGS = ("simplified_chinese", "product_text")
"""Fields of TextConfig that the tokenizer's spec of a bundle holds too."""


class TrainDueConfig(TextConfig):
    """Settings of `labeller train-due`."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "text", "train_due")

    max_age_days: Annotated[int, Field(ge=1)] = 7
    """Days after the last training (the champion's, or a refused candidate's) at which the next is due."""

    max_new_words: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the day's clicks on queries with a word that the last training saw in no query and no title, from which on
    the next is due at once. A night later it is .001 in the sample; if all queries were new ones of the same shop it would
    be .24 (Home Depot's, one half against the other). So .1 is a season or an assortment that has changed."""

    force: bool = False
    """Train in any case."""

    @property
    def writes(self) -> bool:
        """It only looks."""
        return False


def arg_parser() -> argparse.ArgumentParser:
    return settings.arg_parser(TrainDueConfig, "labeller train-due", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), TrainDueConfig, run, argv)


def run(config: TrainDueConfig) -> Mapping[str, Any] | int:
    """The reason to train, or the exit code that says there is none.

    A champion of another contract (format, text normaliser) is none: it labels nothing, so training is due at once.

    Raises:
        InputError: an alias points nowhere.
    """
    warehouse = Warehouse.of(config)
    reason = reason_to_train(config, warehouse) or drifted(config, warehouse)
    if reason is None:
        log.info(
            "the last training is less than %d days old on %s: dataset, train, calibrate and promote are skipped",
            config.max_age_days, config.ds,
        )  # fmt: skip
        return EXIT_NOTHING_DUE
    return {"due": "yes", "reason": repr(reason)}


def reason_to_train(config: TrainDueConfig, warehouse: Warehouse) -> str | None:
    """Why training is due for the day of ``config``; None if it is not.

    Raises:
        InputError: an alias points nowhere.
    """
    path = champion(warehouse)
    if path is not None and (reason := foreign(path)):
        return f"the champion cannot label: {reason}"
    live = alias(warehouse, CHAMPION) if path else None
    return why(config, live, alias(warehouse, CANDIDATE), other_text(config, warehouse))


def drifted(config: TrainDueConfig, warehouse: Warehouse) -> str | None:
    """What shoppers ask that the last training did not know, if that is much; None if it is not, or cannot be told.

    A refused candidate counts as the last training here too: what it learnt of the new words did not make it better.
    """
    live, path = alias(warehouse, CHAMPION), champion(warehouse)
    if live is None or path is None:
        return None
    trained = last_training(live, alias(warehouse, CANDIDATE))
    if config.ds <= trained:
        return None
    found = new_words(warehouse, trained, config.ds, Normaliser(simplified=read_spec(path).simplified_chinese))
    if found is None:
        log.info("pairs has no rows of %s or of %s: whether the input drifted cannot be told", trained, config.ds)
        return None
    told = f"{found.share:.1%} of the clicks of {config.ds} are on {found.queries} queries with words that {trained} lacks"
    if found.share < config.max_new_words:
        log.info("%s (training is due from %.1f%% on)", told, 100 * config.max_new_words)
        return None
    return told


def other_text(config: TrainDueConfig, warehouse: Warehouse) -> str | None:
    """How the champion's settings of ``[text]`` differ from the configured ones; None if they do not.

    None too if a candidate with the configured ones was refused: the champion then stays until the next is due by age.
    """
    wanted = {name: getattr(config, name) for name in TEXT_SETTINGS}

    def found(path: Path) -> dict[str, Any]:
        spec = read_spec(path)
        return {name: getattr(spec, name) for name in TEXT_SETTINGS}

    live = champion(warehouse)
    if live is None or found(live) == wanted:
        return None
    tried = candidate(warehouse) if (alias(warehouse, CANDIDATE) or {}).get("refused") else None
    if tried is not None and found(tried) == wanted:
        return None
    return f"the champion was trained with {found(live)}, [text] says {wanted}"


def why(
    config: TrainDueConfig,
    champion_entry: Mapping[str, Any] | None,
    candidate_entry: Mapping[str, Any] | None = None,
    changed: str | None = None,
) -> str | None:
    """Why training is due; None if it is not. A day before the champion's own never trains: it is a backfill.

    A refused candidate counts as a training: the next night's data are nearly the same and would be refused again.
    ``changed`` is a reason of its own, see :func:`other_text`.
    """
    if config.force:
        return "forced"
    if champion_entry is None:
        return "no champion"
    age = (config.ds - last_training(champion_entry, candidate_entry)).days
    if age >= config.max_age_days:
        return f"the last training is {age} days old"
    return changed if age >= 0 else None


def last_training(champion_entry: Mapping[str, Any], candidate_entry: Mapping[str, Any] | None) -> dt.date:
    """Day of the last training, by what the aliases say: the champion's, or that of a candidate refused since."""
    trained = champion_entry["ds"]
    if candidate_entry and candidate_entry.get("refused"):
        trained = max(trained, candidate_entry["ds"])
    return dt.date.fromisoformat(trained)


if __name__ == "__main__":
    sys.exit(main())
