"""One rank's share of a joined batch: the gradients that its engine arrives at, for the equality tests.

Run by torch's ``spawn`` (float64, without DeepSpeed) and by DeepSpeed's launcher (fp32, every ZeRO stage that we allow).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist

from model.encoder import Encoder
from model.engines import DeepSpeedEngine, Engine, TorchEngine, optimizer, parameter_groups
from model.known import KnownPairs
from model.loss import LossConfig, Rows
from model.packing import pack
from model.presets import EncoderConfig
from model.ranks import Ranks
from model.reader import Batch
from model.trainer import LoopConfig, contrastive_step

ROWS = 16
CONFIG = EncoderConfig(rows=60, dim=12, layers=1, hidden=8, heads=2, ffn=16, positions=8, token_weights=True)
LOOP = LoopConfig(steps=1, tau=0.2, loss=LossConfig(logq=0.5))


def encoder() -> Encoder:
    torch.manual_seed(3)
    made = Encoder(CONFIG)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def joined_rows() -> Rows:
    """16 rows with repeated queries, repeated items and known pairs among them."""
    rng = np.random.default_rng(5)
    return Rows(
        query_group=rng.integers(0, 9, ROWS),
        item_group=rng.integers(0, 10, ROWS),
        weight=rng.uniform(0.5, 3.0, ROWS),
        query_logp=-rng.uniform(1, 4, ROWS),
        item_logp=-rng.uniform(1, 4, ROWS),
    )


def known_pairs() -> KnownPairs:
    rng = np.random.default_rng(6)
    return KnownPairs(rng.integers(0, 9, 12), rng.integers(0, 10, 12))


def share(ranks: Ranks) -> Batch:
    """The rows of a rank, with random texts: its queries, then its titles."""
    rng, rows = np.random.default_rng(7), joined_rows()
    texts = [[rng.integers(0, CONFIG.rows, rng.integers(1, 6)) for _ in range(ROWS)] for _ in range(2)]
    own = slice(ranks.rank * ROWS // ranks.world, (ranks.rank + 1) * ROWS // ranks.world)
    mine = [*texts[0][own], *texts[1][own]]
    packed = pack(np.concatenate(mine), np.cumsum([0, *map(len, mine)]), None)
    names = Rows.__dataclass_fields__
    return Batch(packed, Rows(**{name: getattr(rows, name)[own] for name in names}))


def torch_gradients(ranks: Ranks) -> tuple[float, list[torch.Tensor]]:
    """Mean loss over ranks and averaged gradients in float64, without DeepSpeed."""
    model = encoder().double()
    engine = TorchEngine(model, torch.optim.SGD(model.parameters()), ranks, contextlib.nullcontext)
    loss = contrastive_step(engine, share(ranks), LOOP, ranks, known_pairs())
    engine.backward(loss)
    value = loss.detach().clone()
    if ranks.world > 1:
        dist.all_reduce(value)
    return float(value) / ranks.world, [p.grad for p in model.parameters()]


def spawned(rank: int, world: int, directory: str) -> None:
    """Entry of ``torch.multiprocessing.spawn``."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{directory}/store{world}", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=dt.timedelta(seconds=60))
    loss, gradients = torch_gradients(Ranks(rank, world))
    if rank == 0:
        torch.save({"loss": loss, "gradients": gradients}, f"{directory}/world{world}.pt")
    dist.barrier()
    dist.destroy_process_group()


def deepspeed_engine(stage: int, ranks: Ranks) -> DeepSpeedEngine:
    """In fp32, clipping off."""
    model = encoder()
    settings = {
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 100_000, "allgather_bucket_size": 100_000},
    }
    adam = optimizer(parameter_groups(model, lr=1e-3, weight_lr=5.0, layers_lr=0.5))
    return DeepSpeedEngine(model, adam, settings, ROWS // ranks.world, contextlib.nullcontext)


def deepspeed_gradients(stage: int, ranks: Ranks) -> tuple[float, list[torch.Tensor]]:
    """Gradients as DeepSpeed averages them, and their norm as the engine says it."""
    from deepspeed.utils import safe_get_full_grad

    engine = deepspeed_engine(stage, ranks)
    engine.backward(contrastive_step(engine, share(ranks), LOOP, ranks, known_pairs()))
    norm = engine.gradient_norm()
    return norm, [safe_get_full_grad(parameter).clone() for parameter in engine.engine.module.parameters()]


def moved(engine: Engine, ranks: Ranks) -> dict[str, float]:
    """How far Adam moves each group in the third step, the first in which the layers take part."""
    weights: dict[str, torch.Tensor] = {}
    for step in range(3):
        weights = {name: value.clone() for name, value in engine.encoder.state_dict().items()}
        engine.encoder.layers_on = step == 2
        engine.backward(contrastive_step(engine, share(ranks), LOOP, ranks, known_pairs()))
        engine.step({"table": 1.0, "weights": 1.0, "layers": float(step == 2)})
    found: dict[str, float] = {"table": 0.0, "layers": 0.0}
    for name, value in engine.encoder.state_dict().items():
        group = "table" if "word_embeddings" in name or name.endswith("_weights") else "layers"
        found[group] += float((value - weights[name]).square().sum())
    return found


def torch_moved() -> dict[str, float]:
    """The same without DeepSpeed, in one process."""
    model = encoder()
    adam = optimizer(parameter_groups(model, lr=1e-3, weight_lr=5.0, layers_lr=0.5))
    return moved(TorchEngine(model, adam, Ranks(), contextlib.nullcontext), Ranks())


def launched(directory: Path) -> None:
    """Entry of DeepSpeed's launcher."""
    from model.worker import join

    torch.set_num_threads(1)
    ranks = join("cpu", timeout_minutes=1.0)
    for stage in (0, 1, 2):
        norm, gradients = deepspeed_gradients(stage, ranks)
        steps = moved(deepspeed_engine(stage, ranks), ranks)
        if ranks.rank == 0:
            torch.save({"norm": norm, "gradients": gradients, "moved": steps}, directory / f"stage{stage}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    launched(Path(sys.argv[1]))
