"""The mean of a training's last weights, around whatever engine takes the steps (Izmailov et al. 2018, "SWA")."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from model.engines import Engine
from model.packing import PackedTexts
from model.ranks import Ranks

FILE = "average.pt"
TAKEN = 20
"""Most weights whose mean is made, evenly spaced: each has to be gathered from all ranks."""


class AveragedEngine:
    """An engine whose ``weights`` are the mean of those after some of its last steps."""

    def __init__(self, engine: Engine, ranks: Ranks, *, start: int, steps: int) -> None:
        """Around ``engine``.

        Args:
            engine: Takes the steps.
            ranks: Who takes part.
            start: Steps after which weights count.
            steps: Steps of the whole training, the last of which counts in any case.
        """
        self.engine, self.ranks, self.start, self.steps = engine, ranks, start, steps
        self.every = max(1, math.ceil((steps - start) / TAKEN))
        self.device, self.encoder, self.sharded = engine.device, engine.encoder, engine.sharded
        self.step_, self.taken = 0, 0
        self.sums: dict[str, torch.Tensor] = {}

    def forward(self, texts: PackedTexts, *, last: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        return self.engine.forward(texts, last=last)

    def backward(self, loss: torch.Tensor, *, last: bool = True) -> None:
        self.engine.backward(loss, last=last)

    def gradient_norm(self) -> float | None:
        return self.engine.gradient_norm()

    def step(self, scales: Mapping[str, float]) -> None:
        self.engine.step(scales)
        self.step_ += 1
        if self.step_ > self.start and (self.steps - self.step_) % self.every == 0:
            weights = self.engine.weights()  # all ranks gather them
            if self.ranks.rank == 0:
                for name, value in weights.items():
                    self.sums[name] = self.sums[name] + value.double() if self.taken else value.double()
                self.taken += 1

    def weights(self) -> dict[str, torch.Tensor]:
        """The mean so far on rank 0, which writes the bundle; the engine's own on others, and before there is one."""
        own = self.engine.weights()
        return {name: (self.sums[name] / self.taken).to(value) if self.taken else value for name, value in own.items()}

    def save(self, directory: Path) -> None:
        self.engine.save(directory)
        if self.ranks.rank == 0:
            torch.save({"step": self.step_, "taken": self.taken, "sums": self.sums}, directory / FILE)

    def load(self, directory: Path) -> None:
        self.engine.load(directory)
        state = torch.load(directory / FILE, weights_only=True)
        self.step_ = state["step"]
        if self.ranks.rank == 0:
            self.taken, self.sums = state["taken"], state["sums"]
