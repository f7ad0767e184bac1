"""DeepSpeed opens its checkpoints as pickles that may run anything; here, as files that hold tensors and plain values."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def weights_only() -> Iterator[None]:
    """Meanwhile every ``torch.load`` of this process makes tensors, plain values and DeepSpeed's three marks, and no more.

    DeepSpeed says ``weights_only=False`` wherever it loads; torch's variable overrules it. What a file holds beside these
    raises ``pickle.UnpicklingError`` before any of it is made.
    """
    from deepspeed.runtime.fp16.loss_scaler import LossScaler  # takes seconds, and sets up logging of its own
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before
