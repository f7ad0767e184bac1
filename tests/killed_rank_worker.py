"""One of two ranks of a small training, over gloo; one may be killed by signal 9 in the middle of it."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import signal
from pathlib import Path

import torch
from torch import distributed as dist

from etl.dataset import verify
from model.engines import TorchEngine
from model.fit import fit
from model.ranks import Ranks
from tests.trainings import config

TIMEOUT = dt.timedelta(seconds=60)
KILLED_IN_STEP = 8


def run(rank: int, shop: Path, place: Path, dies: int | None) -> None:
    """Train with checkpoints below ``place``, from the last of them on; rank 0 leaves the curve and the weights there."""
    torch.set_num_threads(1)
    place.mkdir(exist_ok=True)
    store = dist.FileStore(str(place / f"store-{dies}"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=TIMEOUT)
    if rank == dies:
        _die_in_step(KILLED_IN_STEP)
    settings = config(shop, engine="torch", log_every=1)
    fitted = fit(settings, verify(settings.dataset), Ranks(rank, 2), checkpoints=place / "checkpoints")
    if rank == 0:
        torch.save((fitted.curve.points, fitted.encoder.state_dict()), place / "fitted.pt")
    dist.barrier()
    dist.destroy_process_group()


def _die_in_step(number: int) -> None:
    step, taken = TorchEngine.step, itertools.count(1)

    def step_or_die(self: TorchEngine, scales: object) -> None:
        if next(taken) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        step(self, scales)

    TorchEngine.step = step_or_die
