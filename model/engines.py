"""What takes a training step: DeepSpeed, or plain torch for tests and notebooks, behind one small interface."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import distributed as dist

from etl.errors import InputError
from model.compact import row_parameters
from model.encoder import Encoder
from model.packing import PackedTexts
from model.ranks import Ranks

DEEPSPEED_CONFIG = Path(__file__).with_name("deepspeed.json")


class Engine(Protocol):
    """Forward, backward, step; ``scales`` are the shares of their learning rates that groups take in this step.

    ``gradient_norm`` is the L2 norm of the averaged gradient of all parameters, between ``backward`` and ``step``.
    """

    device: torch.device
    encoder: Encoder

    def forward(self, texts: PackedTexts) -> torch.Tensor: ...
    def backward(self, loss: torch.Tensor) -> None: ...
    def gradient_norm(self) -> float: ...
    def step(self, scales: Mapping[str, float]) -> None: ...


def parameter_groups(encoder: Encoder, *, lr: float, weight_lr: float, layers_lr: float) -> list[dict[str, Any]]:
    """Adam's groups: the table, the weights of its rows (``weight_lr`` times as fast), and all else (``layers_lr`` times).

    A row's weight is one number beside its 256, and starts at zero: at the table's rate it hardly moves in a night.
    """
    by_row = row_parameters(encoder)
    rates = {"table": lr, "weights": lr * weight_lr, "layers": lr * layers_lr}
    groups: dict[str, list[torch.nn.Parameter]] = {name: [] for name in rates}
    for name, parameter in encoder.named_parameters():
        table = name.endswith("word_embeddings.weight")
        groups["table" if table else "weights" if name in by_row else "layers"].append(parameter)
    return [{"params": groups[g], "lr": rates[g], "base_lr": rates[g], "name": g} for g in groups if groups[g]]


def optimizer(groups: list[dict[str, Any]]) -> torch.optim.Adam:
    """Dense Adam, one fused kernel a step."""
    return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)


class TorchEngine:
    """Gradients averaged over ranks, as DeepSpeed does, then one optimizer step."""

    def __init__(
        self,
        encoder: Encoder,
        adam: torch.optim.Optimizer,
        ranks: Ranks,
        autocast: Callable[[], AbstractContextManager[None]],
        clip: float = 0.0,
    ) -> None:
        self.encoder, self.adam, self.ranks, self.autocast, self.clip = encoder, adam, ranks, autocast, clip
        self.device = next(encoder.parameters()).device

    def forward(self, texts: PackedTexts) -> torch.Tensor:
        with self.autocast():
            return self.encoder(texts)

    def backward(self, loss: torch.Tensor) -> None:
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        if self.ranks.world > 1:
            # Which parameters have a gradient is the same on every rank: it depends on the step alone.
            for parameter in self.encoder.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= self.ranks.world

    def gradient_norm(self) -> float:
        return total_norm(self.encoder)

    def step(self, scales: Mapping[str, float]) -> None:
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), self.clip)
        _set_lr(self.adam.param_groups, scales)
        self.adam.step()


class DeepSpeedEngine:
    """DeepSpeed's engine with our learning rates."""

    def __init__(
        self,
        encoder: Encoder,
        adam: torch.optim.Optimizer,
        settings: Mapping[str, Any],
        rows: int,
        autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:
        import deepspeed  # takes seconds, and sets up logging of its own

        config = {**settings, "train_micro_batch_size_per_gpu": rows, "steps_per_print": 2**31}
        self.encoder = encoder
        self.engine, *_ = deepspeed.initialize(
            model=_Autocast(encoder, autocast), optimizer=adam, config=config, dist_init_required=False
        )
        self.device = torch.device(self.engine.device)
        self._resting: set[str] = set()

    def forward(self, texts: PackedTexts) -> torch.Tensor:
        return self.engine(texts)

    def backward(self, loss: torch.Tensor) -> None:
        self.engine.backward(loss)

    def gradient_norm(self) -> float:
        if self.engine.fp16_enabled():
            return 0.0  # its loss scaling meets overflows by design, and leaves those steps out by itself
        if self.engine.zero_optimization():
            return float(self.engine.optimizer.scaled_global_norm())  # each rank holds its own part of the gradient
        return total_norm(self.encoder)

    def step(self, scales: Mapping[str, float]) -> None:
        _set_lr(self.engine.optimizer.param_groups, scales)
        self._start_afresh(scales)
        self.engine.step()

    def _start_afresh(self, scales: Mapping[str, float]) -> None:
        """Forget what Adam gathered of a group while it rested.

        DeepSpeed gives parameters without a gradient one of zeros, so Adam counted those steps: without its correction for
        a fresh start the layers would take 1.8 to 3.5 times their rate when they join.
        """
        adam = getattr(self.engine.optimizer, "optimizer", self.engine.optimizer)
        for group in adam.param_groups:
            if not scales[group["name"]]:
                self._resting.add(group["name"])
            elif group["name"] in self._resting:
                self._resting.remove(group["name"])
                for parameter in group["params"]:
                    adam.state.pop(parameter, None)


class _Autocast(torch.nn.Module):
    """The encoder under its precision: from outside, DeepSpeed switches autocast off on a GPU."""

    def __init__(self, encoder: Encoder, autocast: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self.encoder, self.autocast = encoder, autocast

    def forward(self, texts: PackedTexts) -> torch.Tensor:
        with self.autocast():
            return self.encoder(texts)


def total_norm(encoder: Encoder) -> float:
    """L2 norm over all gradients that are there."""
    return float(torch.nn.utils.get_total_norm([p.grad for p in encoder.parameters() if p.grad is not None]))


def read_deepspeed_config(path: Path) -> dict[str, Any]:
    """DeepSpeed's settings from a file.

    Raises:
        InputError: no such file, no JSON, or a setting without which training goes wrong in silence.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"DeepSpeed settings {path} cannot be read: {error}") from None
    problems = []
    if "gradient_clipping" not in settings:
        problems.append("gradient_clipping is not set: DeepSpeed would clip at 1.0 without a word; set it (0 is off)")
    for key in ("optimizer", "scheduler", "train_batch_size", "train_micro_batch_size_per_gpu"):
        if key in settings:
            problems.append(f"{key} is set by the job (see `labeller train --help`): remove it")
    if settings.get("zero_optimization", {}).get("stage", 0) > 2:
        problems.append("zero_optimization.stage 3 is not supported: the bundle is written from whole parameters")
    if settings.get("gradient_accumulation_steps", 1) != 1:
        problems.append("gradient_accumulation_steps must be 1: negatives of several steps cannot be gathered")
    if problems:
        raise InputError.of(problems, heading=f"DeepSpeed settings {path} refused:")
    return settings


def _set_lr(groups: list[dict[str, Any]], scales: Mapping[str, float]) -> None:
    for group in groups:
        group["lr"] = group["base_lr"] * scales[group["name"]]
