"""What takes a training step: DeepSpeed, or plain torch for laptops and notebooks, behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch.nn.parallel import DistributedDataParallel

from model.compact import row_parameters
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.packing import PackedTexts
from model.ranks import Ranks
from model.safe_load import weights_only

EngineName = Literal["deepspeed", "torch"]

ENGINE_TAG = "engine"
"""Directory of DeepSpeed's files within a checkpoint."""

WEIGHT_FILES = "*model_states.pt"
"""How DeepSpeed calls files of weights there, at every stage."""


class Engine(Protocol):
    """Forward, backward, step; ``scales`` are the shares of their learning rates that groups take in this step.

    A step may have several forward and backward passes, whose gradients add up; the ``last`` completes it on all ranks.
    ``gradient_norm`` is the L2 norm of the averaged gradient of all parameters, between that and ``step``; None where the
    engine has it only scaled.
    ``sharded`` says that each rank saves a part of the state, so that another number of ranks cannot load it as it is.
    """

    device: torch.device
    encoder: Encoder
    sharded: bool

    def forward(self, texts: PackedTexts, *, last: bool = True) -> tuple[torch.Tensor, torch.Tensor]: ...
    def backward(self, loss: torch.Tensor, *, last: bool = True) -> None: ...
    def gradient_norm(self) -> float | None: ...
    def step(self, scales: Mapping[str, float]) -> None: ...
    def weights(self) -> dict[str, torch.Tensor]: ...
    def save(self, directory: Path) -> None: ...
    def load(self, directory: Path) -> None: ...


def parameter_groups(model: DualEncoder, *, lr: float, weight_lr: float, layers_lr: float) -> list[dict[str, Any]]:
    """Adam's groups: table and temperature, weights of its rows (``weight_lr`` times as fast), the rest (``layers_lr``).

    A row's weight is one number beside its 256, and starts at zero: at the table's rate it hardly moves in a night.
    """
    by_row = row_parameters(model.encoder)
    rates = {"table": lr, "weights": lr * weight_lr, "layers": lr * layers_lr}
    groups: dict[str, list[torch.nn.Parameter]] = {name: [] for name in rates}
    for name, parameter in model.encoder.named_parameters():
        table = name.endswith("word_embeddings.weight")
        groups["table" if table else "weights" if name in by_row else "layers"].append(parameter)
    if isinstance(model.log_tau, torch.nn.Parameter):
        # No group of its own: DeepSpeed's universal format does not load on a rank that holds nothing of a group.
        groups["table"].append(model.log_tau)
    return [{"params": groups[g], "lr": rates[g], "base_lr": rates[g], "name": g} for g in groups if groups[g]]


def optimizer(groups: list[dict[str, Any]]) -> torch.optim.Adam:
    """Dense Adam, one fused kernel a step."""
    return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)


class TorchEngine:
    """Gradients averaged over ranks by DistributedDataParallel, then one optimizer step."""

    sharded = False

    def __init__(self, model: DualEncoder, adam: torch.optim.Optimizer, ranks: Ranks, clip: float = 0.0) -> None:
        self.model, self.encoder, self.adam, self.ranks, self.clip = model, model.encoder, adam, ranks, clip
        self.device = next(model.parameters()).device
        self._parallel: DistributedDataParallel | None = None
        if ranks.world > 1:
            # Layers that are off have no gradient, nor have those of a rank whose texts are all empty: it has to look each
            # step which parameters take part, or it waits for the others. Where all do in the first one, torch warns.
            self._parallel = DistributedDataParallel(model, forward_sync_buffers=False, find_unused_parameters=True)

    def forward(self, texts: PackedTexts, *, last: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        if self._parallel is None:
            return self.model(texts)
        with nullcontext() if last else self._parallel.no_sync():
            return self._parallel(texts)

    def backward(self, loss: torch.Tensor, *, last: bool = True) -> None:
        loss.backward()  # whether ranks meet in it was said to the forward pass

    def gradient_norm(self) -> float | None:
        return total_norm(self.model)

    def step(self, scales: Mapping[str, float]) -> None:
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        _set_lr(self.adam.param_groups, scales)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def weights(self) -> dict[str, torch.Tensor]:
        """The encoder's state, whole, on the CPU."""
        return {name: value.detach().cpu() for name, value in self.encoder.state_dict().items()}

    def save(self, directory: Path) -> None:
        """Weights and optimizer; on every rank, which all have the same."""
        if self.ranks.rank == 0:
            torch.save({"model": self.model.state_dict(), "adam": self.adam.state_dict()}, directory / "torch.pt")

    def load(self, directory: Path) -> None:
        state = torch.load(directory / "torch.pt", map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])


class DeepSpeedEngine:
    """DeepSpeed's engine with our learning rates."""

    def __init__(
        self,
        model: DualEncoder,
        adam: torch.optim.Optimizer,
        settings: Mapping[str, Any],
        rows: int,
        universal: bool = False,
    ) -> None:
        """Of a model on this rank's device.

        Args:
            model: What it trains.
            adam: Steps it.
            settings: DeepSpeed's, see :mod:`model.deepspeed_settings`.
            rows: Of a rank's batch.
            universal: Whether the checkpoint that it is to load is in DeepSpeed's universal format.
        """
        import deepspeed  # takes seconds, and sets up logging of its own

        self.stage = zero_stage(settings)
        self.sharded = self.stage > 0
        self.universal = universal and self.sharded
        config = {**settings, "train_micro_batch_size_per_gpu": rows, "steps_per_print": 2**31}
        config["checkpoint"] = {**settings.get("checkpoint", {}), "load_universal": self.universal}
        self.model, self.encoder = model, model.encoder
        self.engine, *_ = deepspeed.initialize(model=model, optimizer=adam, config=config, dist_init_required=False)
        self.device = torch.device(self.engine.device)
        self._resting: set[str] = set()

    def forward(self, texts: PackedTexts, *, last: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        return self.engine(texts)

    def backward(self, loss: torch.Tensor, *, last: bool = True) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss)

    def gradient_norm(self) -> float | None:
        if self.engine.fp16_enabled():
            return None  # its loss scaling meets overflows by design, and leaves those steps out by itself
        if self.stage == 3:
            return float(torch.stack(self.engine.optimizer._get_norm_groups()).norm())
        if self.stage:
            return float(self.engine.optimizer.scaled_global_norm())  # each rank holds its own part of the gradient
        return total_norm(self.model)

    def step(self, scales: Mapping[str, float]) -> None:
        _set_lr(self.engine.optimizer.param_groups, scales)
        self._start_afresh(scales)
        self.engine.step()

    def weights(self) -> dict[str, torch.Tensor]:
        """The encoder's state, whole, on the CPU of every rank."""
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self.encoder.parameters()), enabled=self.stage == 3):
            return {name: value.detach().cpu().clone() for name, value in self.encoder.state_dict().items()}

    def adam_steps(self) -> dict[str, float]:
        """How many steps Adam has counted of each group, which differ where layers joined late."""
        return {
            group["name"]: float(self._adam.state[stepped]["step"])
            for number, group in enumerate(self._adam.param_groups)
            for stepped in self._stepped(number, group)
        }

    def save(self, directory: Path) -> None:
        """Weights and optimizer, each rank its part; on every rank."""
        state = {"resting": sorted(self._resting), "adam_steps": self.adam_steps()}
        self.engine.save_checkpoint(str(directory), tag=ENGINE_TAG, client_state=state, save_latest=False)

    def load(self, directory: Path) -> None:
        """What :meth:`save` left under as many ranks; under any number if it is ``universal`` or not ``sharded``.

        Raises:
            RuntimeError: nothing is there to load, of which DeepSpeed has an assertion without words.
        """
        if not any((directory / ENGINE_TAG).glob(WEIGHT_FILES)):
            raise RuntimeError(f"{directory}/{ENGINE_TAG} holds nothing that DeepSpeed saved (expected {WEIGHT_FILES})")
        ours = [{k: v for k, v in group.items() if k != "params"} for group in self._adam.param_groups]
        with weights_only():
            _, state = self.engine.load_checkpoint(str(directory), tag=ENGINE_TAG)
        self._resting = set(state["resting"])
        if self.universal:
            self._put_right(ours, state["adam_steps"])

    def _put_right(self, groups: list[dict[str, Any]], steps: Mapping[str, float]) -> None:
        """What DeepSpeed 0.19 loads wrongly at stage 3: every group gets the name and the steps of the first one.

        Of the steps even the same tensor, to which each group then adds one a step.
        """
        for number, (group, ours) in enumerate(zip(self._adam.param_groups, groups, strict=True)):
            group.update(ours)
            for stepped in self._stepped(number, group):
                counted = self._adam.state[stepped]["step"]
                self._adam.state[stepped]["step"] = torch.full_like(torch.as_tensor(counted), steps[ours["name"]])

    @property
    def _adam(self) -> torch.optim.Optimizer:
        """Within DeepSpeed's own optimizer, where there is one around it."""
        return getattr(self.engine.optimizer, "optimizer", self.engine.optimizer)

    def _start_afresh(self, scales: Mapping[str, float]) -> None:
        """Forget what Adam gathered of a group while it rested.

        DeepSpeed gives parameters without a gradient one of zeros, so Adam counted those steps: without its correction for
        a fresh start the layers would take 1.8 to 3.5 times their rate when they join.
        """
        for number, group in enumerate(self._adam.param_groups):
            if not scales[group["name"]]:
                self._resting.add(group["name"])
            elif group["name"] in self._resting:
                self._resting.remove(group["name"])
                for parameter in self._stepped(number, group):
                    self._adam.state.pop(parameter, None)

    def _stepped(self, number: int, group: Mapping[str, Any]) -> list[torch.Tensor]:
        """What Adam steps of a group: at stage 3 the flat parts of it, which are put into it one by one."""
        if self.stage < 3:
            return list(group["params"])
        zero = self.engine.optimizer
        return [flat for n, flat in enumerate(zero.fp32_partitioned_groups_flat) if zero.sub_group_to_group_id[n] == number]


def zero_stage(settings: Mapping[str, Any]) -> int:
    return int(settings.get("zero_optimization", {}).get("stage", 0))


def total_norm(model: torch.nn.Module) -> float:
    """L2 norm over all gradients that are there."""
    return float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def _set_lr(groups: list[dict[str, Any]], scales: Mapping[str, float]) -> None:
    for group in groups:
        group["lr"] = group["base_lr"] * scales[group["name"]]
