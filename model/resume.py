"""Going on from the newest whole checkpoint of a training: what it has settled, its state, and those that follow it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from etl.dataset import Manifest
from model.checkpoints import Checkpoints, Found
from model.engines import Engine
from model.positions import Position
from model.presets import Preset
from model.progress import Curve
from model.ranks import Ranks
from model.shares import fit_batch
from model.train_config import TrainConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resume:
    """A training that starts, or goes on."""

    ranks: Ranks
    keeper: Checkpoints | None
    """Of its checkpoints; None: it leaves none."""
    found: Found | None
    """The checkpoint that it goes on from; None: it starts."""

    @classmethod
    def newest(cls, directory: Path | None, ranks: Ranks, keep: int) -> Resume:
        """Of the checkpoints in ``directory``, of which ``keep`` are kept; None: there are none, and none are left."""
        keeper = Checkpoints(directory, ranks, keep) if directory is not None else None
        return cls(ranks, keeper, keeper.newest() if keeper is not None else None)

    @property
    def resized(self) -> bool:
        """Whether other ranks, by their number, have saved what this goes on from."""
        return self.found is not None and self.found.position.world != self.ranks.world

    def preset(self, config: TrainConfig, manifest: Manifest) -> Preset:
        """As configured; a batch that nobody asked for fits the data, or what the training goes on from."""
        chosen = config.chosen_preset(manifest)
        if config.batch is not None:
            return chosen
        if self.found is None:
            return chosen.with_settings(batch=fit_batch(manifest, chosen.batch, self.ranks.world))
        together = self.found.position.settings["batch"] * self.found.position.world
        return chosen.with_settings(batch=max(1, together // self.ranks.world))

    def steps(self, planned: int) -> int:
        """Of the whole training, for which these ranks alone have ``planned`` so many."""
        if self.found is None:
            return planned
        # Other ranks have other rests of an epoch; the schedule stays that of the steps planned first, however often
        # their number has changed. Other epochs are refused as such.
        return int(self.found.position.settings["steps"])

    def require_continuable(self, here: Position) -> None:
        """See :meth:`model.positions.Position.require_continuable`.

        Raises:
            InputError: the checkpoint is of a training that ``here`` is none of.
        """
        if self.found is not None:
            self.found.position.require_continuable(here)

    def load(self, engine: Engine) -> Curve:
        """Put the state of the checkpoint into ``engine``; returns what happened before it."""
        if self.keeper is None or self.found is None:
            return Curve()
        self.keeper.load(engine, self.found)
        before, now, step = self.found.position.world, self.ranks.world, self.found.position.step
        log.warning("going on after step %d from %s", step, self.found.path)
        curve = self.found.progress
        if before != now and self.ranks.rank == 0:
            log.warning(
                "step %d was of %d ranks, there are %d now: weights and optimizer are those saved and batches are as large, "
                "but rows come in another order: some of the current epoch come twice or not at all; dropout %s",
                step, before, now,
                f"of ranks {before} to {now - 1} is drawn anew" if now > before else f"goes on on {now}",
            )  # fmt: skip
        curve.rows, curve.tokens = (count * before // now for count in (curve.rows, curve.tokens))
        return curve

    def saving(self, engine: Engine, start: Position) -> Callable[[Curve], None] | None:
        """What leaves a checkpoint of a training that had this ``start``; None where it leaves none."""
        keeper = self.keeper
        if keeper is None:
            return None
        return lambda now: keeper.save(engine, replace(start, step=now.step), now.agreed(self.ranks))
