"""A linear layer by int8 products, as a candidate for our encoder: what it would win, and what it would cost in cosine.

Weights are rounded per output, activations per token at run time: so a text's vector does not depend on those beside it.
"""

# T tokens, I inputs, O outputs

from __future__ import annotations

import torch
from torch import nn


class Int8Linear(nn.Module):
    """Takes the place of a trained ``nn.Linear``."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight_IO, scale_O1 = rounded(linear.weight.detach())
        self.weight_IO, self.scale_O = self.weight_IO.t(), scale_O1[:, 0]
        self.bias = 0.0 if linear.bias is None else linear.bias

    def forward(self, x_TI: torch.Tensor) -> torch.Tensor:
        """[T, I] -> [T, O], both float32."""
        x_TI, scale_T1 = rounded(x_TI)
        products_TO = torch._int_mm(x_TI, self.weight_IO).float()
        return products_TO.mul_(scale_T1).mul_(self.scale_O).add_(self.bias)


def rounded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, D] float32 -> int8 of the same shape, and what each row is to be multiplied with again, [N, 1]."""
    scale_N1 = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (rows / scale_N1).round().to(torch.int8), scale_N1


def quantise(module: nn.Module) -> None:
    """Put one in place of each linear layer inside ``module``."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantise(child)
