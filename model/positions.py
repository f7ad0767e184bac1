"""Where a training stands in its data: what a checkpoint keeps to go on with exactly the batches that would have come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
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

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Position:
        return cls(**json.loads(text))

    def require_same(self, here: Position) -> None:
        """Refuse to go on from here where other batches would follow.

        Raises:
            InputError: dataset, ranks or settings differ; all differences are listed.
        """
        theirs, ours = ({"dataset": p.dataset, "ranks": p.world, **p.settings} for p in (self, here))
        problems = [
            f"{name} is {ours.get(name)!r}, the position was saved with {theirs.get(name)!r}"
            for name in sorted(theirs.keys() | ours.keys())
            if theirs.get(name) != ours.get(name)
        ]
        if problems:
            cure = "train with what it was saved with, or start afresh"
            raise InputError.of(problems, heading=f"cannot go on from step {self.step}; {cure}:")
