"""Where a training stands in its data: what a checkpoint keeps to go on with exactly the batches that would have come.

With another number of ranks other batches come: as many rows in each, in another order. A row of the epoch that was cut off
may then come a second time, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from etl.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """A place in the batches of all ranks, and everything that those batches depend on."""

    step: int
    """Batches that were taken."""
    dataset: str
    """:attr:`etl.dataset.Manifest.digest`."""
    world: int
    """Ranks."""
    settings: Mapping[str, Any]
    """Seed, batch, crops and whatever else decides what is in a batch."""

    def require_same(self, here: Position) -> None:
        """Refuse to go on from here where other batches would follow.

        Raises:
            InputError: dataset, ranks or settings differ; all differences are listed.
        """
        if problems := _differences(self, here):
            cure = "train with what it was saved with, or start afresh"
            raise InputError.of(problems, heading=f"cannot go on from step {self.step}; {cure}:")

    def require_continuable(self, here: Position) -> None:
        """As :meth:`require_same`, but with another number of ranks if they share the batch of all ranks.

        Raises:
            InputError: dataset, settings or the batch of all ranks differ; all differences are listed.
        """
        if self.world == here.world:
            self.require_same(here)
        elif problems := _differences(self.resized(here), here):
            raise InputError.of(
                problems,
                heading=f"cannot go on from step {self.step} of {self.world} ranks with {here.world}, whose batches must "
                "together be as large (they are said by rank); train with what it was saved with, or start afresh:",
            )

    def resized(self, here: Position) -> Position:
        """This place for as many ranks as ``here`` has, which share the batch of all ranks that it was saved with.

        Crops are rounded on each rank: so many more or fewer on all of them are the same.
        """
        settings = dict(self.settings)
        for name in ("batch", "crops"):
            share = settings[name] * self.world / here.world
            settings[name] = int(share) if share.is_integer() else round(share, 3)
        if abs(here.settings["crops"] - settings["crops"]) * here.world <= max(self.world, here.world):
            settings["crops"] = here.settings["crops"]
        return replace(self, world=here.world, settings=settings)


def _differences(saved: Position, here: Position) -> list[str]:
    theirs, ours = ({**p.settings, "dataset": p.dataset, "ranks": p.world} for p in (saved, here))
    return [
        f"{name} is {ours.get(name)!r}, the position was saved with {theirs.get(name)!r}"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
