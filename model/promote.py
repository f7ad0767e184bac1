"""Make the candidate bundle the champion, if it is no worse on the held-out queries.

Both are asked the same queries of the part ``test``, on which nothing was chosen, and compared query by query. Whether there
is a champion or not, a random ranking must not do as well: among ten titles every one finds all. The best figure of any
champion stands beside the alias: to fall a little behind the last champion each week is a long way down.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from etl import config as settings
from etl.config import JobConfig
from etl.dataset import Manifest, verify
from etl.errors import EXIT_NOTHING_DUE, GateRefused, InputError
from etl.job import run_job
from etl.tokenizer import tokenizer_hash
from etl.warehouse import Warehouse
from model.bundle import CANDIDATE, CHAMPION, Bundle, alias, candidate, champion, foreign, load_bundle, set_alias
from model.evaluate import evaluate, searched
from model.metrics import recall_at_random
from model.model_card import record_gate

log = logging.getLogger(__name__)

RANKS = 10
MEASURE = f"recall@{RANKS}"
Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate less champion in MEASURE: its mean over the same queries, and the paired bootstrap interval."""

    split: str
    queries: int
    champion: float
    """The champion's mean."""
    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        sure = "" if self.low is None else f" (95% interval {self.low:+.4f} to {self.high:+.4f})"
        return (
            f"{MEASURE} on the same {self.queries} queries of {self.split} differs by {self.mean:+.4f}{sure} from the "
            f"champion's {self.champion:.4f}"
        )


@dataclass(frozen=True, slots=True)
class Chance:
    """What MEASURE is of random rankings of the titles, on the queries that decide."""

    titles: int
    """How many there are."""
    queries: int
    mean: float
    """RANKS of the titles that a query is asked among, and 1 where there are no more."""
    as_good: float
    """Share of random rankings that reach what the candidate does."""


@dataclass(frozen=True, slots=True)
class Best:
    """The champion whose MEASURE was the highest of all up to now, on the queries of its own day."""

    bundle: str
    ds: str
    split: str
    value: float


class PromoteConfig(JobConfig):
    """Settings of `labeller promote`."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "promote")

    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02
    """How far the candidate's recall@10 may fall behind the champion's on the same test queries; less than that is refused
    too where the 95% interval of the difference leaves no doubt. Two seeds of one recipe differ by .2 a query (standard
    deviation), so of equally good candidates .02 refuses 5% by the 283 queries of the sample, where .01 refused 20%."""

    floor: Annotated[float, Field(ge=0, le=1)] = 0.05
    """What a candidate reaches in any case, champion or not: the recall@10 of a random ranking, which is 10 over the number
    of titles, and this share of what that leaves."""

    by_chance: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of random rankings that may have the recall@10 of a candidate: with more of them nobody knows whether it learnt
    anything, and it is not promoted, champion or not. Ten titles are found by all of them; 1 lets a shop of so few have its
    bundles unjudged."""

    def least(self, chance: Chance) -> float:
        """MEASURE that a candidate must reach."""
        return chance.mean + self.floor * (1 - chance.mean)


def arg_parser() -> argparse.ArgumentParser:
    return settings.arg_parser(PromoteConfig, "labeller promote", __doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(arg_parser(), PromoteConfig, run, argv)


def run(config: PromoteConfig) -> Mapping[str, Any] | int:
    """Compare candidate and champion on the day's dataset, and move the alias.

    A worse candidate is no reason to leave the catalogue unlabelled: the champion stays, and the exit code says that
    nothing was promoted (99).

    Raises:
        InputError: there is no candidate, it is of another day or dataset or not calibrated, or a bundle or the dataset is
            damaged or gone.
        GateRefused: the candidate is refused and there is no champion to label with.
    """
    warehouse = Warehouse.of(config)
    path, live = candidate(warehouse), _able(champion(warehouse))
    if path is None:
        raise InputError(f"{warehouse.bundles} has no candidate: run `labeller train` first")
    new = load_bundle(path)
    if (trained_on := new.manifest["lineage"].get("dataset")) != config.ds.isoformat():
        raise InputError(
            f"candidate {new.id} was trained and evaluated on the dataset of {trained_on}, the champion would be asked the "
            f"queries of {config.ds}: run `labeller promote --ds {trained_on}`, or train on {config.ds} first"
        )
    if new.calibration is None:
        raise InputError(f"candidate {new.id} has no probabilities yet: run `labeller calibrate --ds {config.ds}` first")
    old = load_bundle(live) if live is not None and live != path else None
    dataset = warehouse.dataset(config.ds)
    manifest = own_dataset(new, dataset)
    chance = chance_of(new.metrics["heldout"], dataset, manifest)
    difference, theirs = compare(new, old, dataset, manifest) if old else (None, {})
    problems = gate(new.metrics["heldout"], new.metrics["untrained"], theirs, config, chance, difference)
    compared = {} if difference is None or old is None else {"compared": {"bundle": old.id, **asdict(difference)}}
    verdict: dict[str, Any] = {"ds": config.ds.isoformat(), "promoted": not problems, "problems": problems}
    verdict |= {"floor": round(config.least(chance), 4) if chance else config.floor, "tolerance": config.tolerance}
    verdict |= {"by_chance": config.by_chance, "chance": asdict(chance) if chance else None, "compared": None}
    record_gate(path, verdict | compared)
    if problems:
        refusal = f"candidate {new.id} is not promoted: " + "; ".join(problems)
        if live is None:
            raise GateRefused(f"{refusal}; there is no champion to label with")
        log.warning("%s; champion %s stays", refusal, live.name)
        set_alias(warehouse, CANDIDATE, path, refused=problems, **compared)  # so that the next night does not train it again
        return EXIT_NOTHING_DUE
    set_alias(warehouse, CHAMPION, path, best=asdict(best_of(warehouse, new, config)), **compared)
    return {"champion": new.id, "before": old.id if old else "none", **_flat(new.metrics["heldout"])}


def best_of(warehouse: Warehouse, new: Bundle, config: PromoteConfig) -> Best:
    """The best champion, ``new`` included; warns if ``new`` is more than the tolerance behind it.

    It warns and does not refuse, since each figure is of its own day's queries and catalogue.
    """
    split = judged_by(new.metrics["heldout"])
    assert split is not None  # the gate has let it through
    ours = Best(new.id, new.manifest["ds"], split, new.metrics["heldout"][split][MEASURE])
    best = _best_before(alias(warehouse, CHAMPION) or {}, split)
    if best is None or ours.value > best.value:
        return ours
    if ours.value < best.value - config.tolerance:
        log.warning(
            "SLIDING: %s on %s of the new champion %s is %.4f, and was %.4f with champion %s of %s: each was let through "
            "for being close to the last one; look for the cause (inputs, settings) or, if the shop itself has changed, "
            "delete `best` from %s", MEASURE, split, new.id, ours.value, best.value, best.bundle, best.ds,
            warehouse.bundles / f"{CHAMPION}.json",
        )  # fmt: skip
    return best


def _best_before(entry: Mapping[str, Any], split: str) -> Best | None:
    """What the champion's alias keeps of ``split``, else the champion's own figure."""
    kept, own = entry.get("best", {}), entry.get("metrics", {}).get(split)
    if kept.get("split") == split:
        return Best(**kept)
    return Best(entry["bundle"], entry["ds"], split, own[MEASURE]) if own else None


def _able(live: Path | None) -> Path | None:
    """The champion, unless it is of another contract: then there is none that could label or be compared with."""
    if live is not None and (reason := foreign(live)):
        log.warning("the champion cannot label and counts as none: %s", reason)
        return None
    return live


def gate(
    new: Figures,
    untrained: Figures,
    old: Figures,
    config: PromoteConfig,
    chance: Chance | None,
    difference: Difference | None = None,
) -> list[str]:
    """Why a candidate may not label; empty if it may.

    Args:
        new: Its figures by split.
        untrained: Those of its own random start.
        old: The champion's of its own day, where it cannot be asked the same queries; else empty.
        config: The limits.
        chance: What random rankings find of the same queries; None only where there are no queries.
        difference: Candidate less champion on the same queries; None without a champion that can be asked them.
    """
    split = judged_by(new)
    if split is None:
        return ["the dataset has no held-out queries to judge by: raise --test-share of `labeller pairs`"]
    assert chance is not None, "there are queries"
    value, start, found = new[split][MEASURE], untrained[split][MEASURE], []
    compared = {"the candidate's": value, "that of its random start": start}
    if split in old:
        compared["the champion's of its own day"] = old[split][MEASURE]
    if difference is not None:
        compared |= {"the champion's": difference.champion, "the difference from it": difference.mean}
    if odd := [name for name, figure in compared.items() if not math.isfinite(figure)]:  # of which no limit is too high
        return [f"{MEASURE} on {split} is no number ({', '.join(odd)}), so there is nothing to judge by: train again"]
    if value < (least := config.least(chance)):
        found.append(
            f"{MEASURE} on {split} is {value:.4f}, below the floor {least:.4f} (of {chance.titles} titles chance finds "
            f"{chance.mean:.4f}; [promote] floor is {config.floor} of the rest)"
        )
    if chance.as_good > config.by_chance:
        found.append(
            f"{MEASURE} on {split} is {value:.4f}, which {chance.as_good:.1%} of random rankings reach with "
            f"{chance.queries} queries among {chance.titles} titles (expected at most {config.by_chance:.1%}): whether it "
            "learnt anything cannot be told; it takes more titles, or more held-out queries ([pairs] test_share); [promote] "
            "by_chance = 1 lets a shop that is meant to be so small go without"
        )
    if value <= start < 1.0:  # one that finds everything untrained has nothing to learn
        found.append(f"{MEASURE} on {split} is {value:.4f}, no better than untrained ({start:.4f})")
    if split in old and value < old[split][MEASURE] - config.tolerance:
        found.append(
            f"{MEASURE} on {split} is {value:.4f}, the champion's of its own day {old[split][MEASURE]:.4f} "
            f"(tolerance {config.tolerance})"
        )
    if difference is not None and difference.mean < -config.tolerance:
        found.append(f"{difference}: further behind than the tolerance {config.tolerance}")
    elif difference is not None and difference.high is not None and difference.high < 0:
        found.append(f"{difference}: behind beyond doubt, within the tolerance {config.tolerance} though it is")
    return found


def judged_by(splits: Container[str]) -> str | None:
    """The split that decides."""
    return next((split for split in ("test", "valid") if split in splits), None)


def own_dataset(new: Bundle, dataset: Path) -> Manifest:
    """The manifest of the dataset that the candidate was trained on, verified.

    Raises:
        InputError: the dataset is damaged, or is not the one that the candidate was trained on.
    """
    manifest = verify(dataset)
    trained_on = str(new.manifest["lineage"].get("dataset_digest"))  # None: trained before datasets had today's format
    if trained_on != manifest.digest:
        raise InputError(
            f"candidate {new.id} was trained on a dataset of digest {trained_on[:12]}, {dataset} has "
            f"{manifest.digest[:12]}: it was built or mined again since, so run `labeller train --ds {manifest.ds}` again"
        )
    return manifest


def chance_of(new: Figures, dataset: Path, manifest: Manifest) -> Chance | None:
    """How well random rankings answer the queries that decide; None without such queries."""
    split = judged_by(new)
    if split is None:
        return None
    among, right = searched(dataset, manifest, split)
    # Figures are kept to six decimals.
    as_good = float((recall_at_random(among, right, RANKS) >= new[split][MEASURE] - 1e-6).mean())
    titles = manifest.rows("titles") + manifest.rows("corpus")
    return Chance(titles, len(right), round(float(np.minimum(RANKS / among, 1).mean()), 6), as_good)


def compare(new: Bundle, old: Bundle, dataset: Path, manifest: Manifest) -> tuple[Difference | None, Figures]:
    """Candidate and champion on a dataset's queries; or the champion's figures of its own day, where it has other tokens."""
    if tokenizer_hash(old.path) != manifest.tokenizer:
        log.warning("champion %s has another tokenizer than %s: its figures of its own day are compared", old.id, dataset)
        return None, old.metrics["heldout"]
    answers = [evaluate(bundle.encoder, dataset, manifest) for bundle in (new, old)]
    split = judged_by(answers[0].splits)
    if split is None:
        return None, {}
    theirs = answers[1].figures()[split]
    difference = Difference(split, int(theirs["queries"]), theirs[MEASURE], *answers[0].less(answers[1])[split][MEASURE])
    log.info("candidate %s beside champion %s: %s", new.id, old.id, difference)
    return difference, {}


def _flat(figures: Figures) -> dict[str, float]:
    return {f"{split}_{name}": value for split, row in figures.items() for name, value in row.items()}


if __name__ == "__main__":
    sys.exit(main())
