"""One of two ranks: loss or gradient goes wrong on rank 1 alone, vectors collapse on both, since weights are the same."""

from __future__ import annotations

import datetime as dt

import torch
from torch import distributed as dist

from model.encoder import Encoder
from model.engines import TorchEngine
from model.ranks import Ranks
from model.trainer import Collapsed, LoopConfig, NotFinite, train
from tests.gradient_worker import model, share

CASES = ("loss", "gradient", "collapse")


def spoil(case: str, encoder: Encoder, rank: int) -> None:
    table = encoder.embeddings.word_embeddings.weight
    if case == "collapse":
        torch.nn.init.constant_(table, 0.1)
        torch.nn.init.zeros_(encoder.embeddings.position_embeddings.weight)  # or texts differ by their lengths
    elif rank == 1 and case == "loss":
        torch.nn.init.constant_(table, float("nan"))
    elif rank == 1:
        table.register_hook(lambda gradient: gradient * float("inf"))


def stopped(case: str, ranks: Ranks) -> tuple[str, bool]:
    """What ended the training, and whether weights are as they were."""
    made = model(learn_tau=False)
    engine = TorchEngine(made, torch.optim.SGD(made.parameters(), lr=1.0), ranks)
    spoil(case, made.encoder, ranks.rank)
    before = {name: value.clone() for name, value in engine.weights().items()}
    try:
        train(engine, [share(ranks)], LoopConfig(steps=1), ranks)
    except (NotFinite, Collapsed) as error:
        now = engine.weights()
        return str(error), all(torch.equal(now[name].nan_to_num(), value.nan_to_num()) for name, value in before.items())
    return "", False


def spawned(rank: int, directory: str) -> None:
    """Entry of ``torch.multiprocessing.spawn``."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{directory}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=dt.timedelta(seconds=60))
    torch.save({case: stopped(case, Ranks(rank, 2)) for case in CASES}, f"{directory}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
