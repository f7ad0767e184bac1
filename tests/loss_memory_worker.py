"""Peak memory of the loss and its gradient at a batch size, in MiB above what was there before; one size a process."""

from __future__ import annotations

import resource
import sys

import numpy as np
import torch
from torch.nn import functional as F

from model.loss import Rows, contrastive_loss
from model.ranks import Ranks

DIM = 64


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(size: int) -> None:
    """One pass forward and back over ``size`` rows."""
    ids = np.arange(size)
    rows = Rows(ids, ids, np.ones(size), np.zeros(size), np.zeros(size))
    vectors = (F.normalize(torch.randn(size, DIM), dim=1).requires_grad_() for _ in range(2))
    contrastive_loss(*vectors, rows, tau=0.1, ranks=Ranks()).loss.backward()


if __name__ == "__main__":
    run(64)  # what is loaded on first use is not the loss's
    before = peak_mib()
    run(int(sys.argv[1]))
    print(peak_mib() - before)
