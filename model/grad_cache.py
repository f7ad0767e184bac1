"""The gradient of a batch of any size within the memory of a part of it.

Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup" (GradCache): encode the batch part
by part and keep the vectors only; from them the loss and its gradient with respect to each vector; then encode each part
again, with its graph, and pull its vectors' gradients through. It is the gradient of the whole batch, unlike that of
accumulated steps, whose parts never meet as negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from model.engines import Engine
from model.loss import Contrast
from model.packing import PackedTexts

LossOf = Callable[[torch.Tensor, torch.Tensor], Contrast]
"""Vectors [N, D] and temperature [1] -> the loss."""


def cached_step(engine: Engine, parts: Sequence[PackedTexts], loss_of: LossOf) -> tuple[Contrast, Callable[[], None]]:
    """The loss of all parts together, and what computes its gradient; every rank must bring as many parts."""
    states, found = [], []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state(engine.device))
            vectors, tau = engine.forward(part.to(engine.device))
            found.append(vectors)
    # Half precision would round the gradients that are handed back.
    vectors = torch.cat(found).to(torch.promote_types(found[0].dtype, torch.float32)).requires_grad_()
    tau = tau.detach().requires_grad_()
    contrast = loss_of(vectors, tau)

    def backward() -> None:
        vectors_grad, tau_grad = torch.autograd.grad(contrast.loss, (vectors, tau))
        ends = vectors_grad.split([len(part) for part in parts])
        after = _random_state(engine.device)
        for number, (part, state, grad) in enumerate(zip(parts, states, ends, strict=True), start=1):
            _set_random_state(engine.device, state)  # the dropout of the first time
            last = number == len(parts)
            again, tau_again = engine.forward(part.to(engine.device), last=last)
            surrogate = (again.to(grad.dtype) * grad).sum()
            if tau_again.requires_grad:
                # Every part takes a share, so that each backward pass reaches the same parameters.
                surrogate = surrogate + (tau_again * tau_grad).sum() / len(parts)
            engine.backward(surrogate, last=last)
        _set_random_state(engine.device, after)

    return contrast._replace(loss=contrast.loss.detach()), backward


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
