"""What a training optimises: the encoder of both towers, under its precision, and the temperature of their cosines."""

# N texts, D embedding

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from model.encoder import Encoder
from model.packing import PackedTexts

TAU_RANGE = (0.01, 1.0)
"""Bounds of a learned temperature; CLIP's (Radford et al. 2021) lower one."""


class DualEncoder(nn.Module):
    """Texts of either tower -> unit vectors, and the temperature."""

    def __init__(
        self,
        encoder: Encoder,
        tau: float = 1.0,
        learn_tau: bool = False,
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Of an encoder.

        Args:
            encoder: Shared by both towers.
            tau: Temperature, at the start if it is learned.
            learn_tau: Whether it is.
            autocast: Context of the forward pass; DeepSpeed switches off one that is opened outside on a GPU.
        """
        super().__init__()
        self.encoder, self.autocast = encoder, autocast
        # Shape [1]: DeepSpeed cannot partition a parameter without dimensions.
        log_tau = torch.full((1,), math.log(tau))
        if learn_tau:
            self.log_tau = nn.Parameter(log_tau)
        else:
            self.register_buffer("log_tau", log_tau, persistent=False)

    def forward(self, texts: PackedTexts) -> tuple[torch.Tensor, torch.Tensor]:
        """N packed texts -> [N, D] unit vectors, and the temperature [1]."""
        with self.autocast():
            vectors = self.encoder(texts)
        return vectors, _Clamp.apply(self.log_tau).exp()


class _Clamp(torch.autograd.Function):
    """Keeps log tau within its range; a gradient that leads back into it passes, one that leads out does not."""

    @staticmethod
    def forward(ctx: Any, log_tau: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(log_tau)
        return log_tau.clamp(*map(math.log, TAU_RANGE))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (log_tau,), (low, high) = ctx.saved_tensors, map(math.log, TAU_RANGE)
        outwards = ((log_tau <= low) & (grads[0] > 0)) | ((log_tau >= high) & (grads[0] < 0))
        return grads[0].masked_fill(outwards, 0.0)
