"""One rank's share of a joined batch: the gradients that its engine arrives at, for the equality tests.

Run by torch's ``spawn`` (float64, without DeepSpeed) and by DeepSpeed's launcher (fp32, every ZeRO stage).
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist

from model.distillation import Teacher
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.engines import DeepSpeedEngine, Engine, TorchEngine, optimizer, parameter_groups
from model.known import KnownPairs
from model.loss import NO_ITEM, LossConfig, Rows
from model.packing import pack
from model.presets import EncoderConfig
from model.ranks import Ranks
from model.reader import Batch
from model.tiled_cross_entropy import Tile
from model.trainer import LoopConfig, contrastive_step

ROWS = 16
CONFIG = EncoderConfig(rows=60, dim=12, layers=1, hidden=8, heads=2, ffn=16, positions=8, token_weights=True)
LOOP = LoopConfig(steps=1, loss=LossConfig(logq=0.5))
HARD = 8
"""Further negatives of all ranks."""
CASES = {
    "hard negatives": LOOP,
    "plain": LOOP,
    "several positives, margin": replace(LOOP, loss=LossConfig(logq=0.5, multi_positives=True, margin=0.1)),
    "no masks, hard negatives": replace(LOOP, loss=LossConfig(logq=0.5, masks=False)),
    "matryoshka": replace(LOOP, loss=LossConfig(logq=0.5, margin=0.1, matryoshka=(3, 7))),
    "cached": replace(LOOP, cache_texts=5),
    "cached hard negatives": replace(LOOP, cache_texts=5),
    "distilled hard negatives": LOOP,
    "tiles, hard negatives": replace(
        LOOP, loss=LossConfig(logq=0.5, multi_positives=True, margin=0.1, matryoshka=(3, 7), tile=Tile(rows=3, columns=5))
    ),
    "cached distilled hard negatives": replace(LOOP, cache_texts=5),
    "cached matryoshka": replace(LOOP, loss=LossConfig(logq=0.5, margin=0.1, matryoshka=(3, 7)), cache_texts=5),
}


def model(learn_tau: bool = True, dropout: float = 0.0, seed: int = 3) -> DualEncoder:
    torch.manual_seed(seed)
    made = Encoder(replace(CONFIG, dropout=dropout, attention_dropout=dropout))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return DualEncoder(made, tau=0.2, learn_tau=learn_tau)


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


def share(ranks: Ranks, hard: bool = False) -> Batch:
    """The rows of a rank, with random texts: its queries, then its titles, then its hard negatives, some of them answers."""
    rng, rows = np.random.default_rng(7), joined_rows()
    texts = [[rng.integers(0, CONFIG.rows, rng.integers(1, 6)) for _ in range(n)] for n in (ROWS, ROWS, HARD)]
    own, further = (slice(ranks.rank * n // ranks.world, (ranks.rank + 1) * n // ranks.world) for n in (ROWS, HARD))
    mine = [*texts[0][own], *texts[1][own], *(texts[2][further] if hard else ())]
    packed = pack(np.concatenate(mine), np.cumsum([0, *map(len, mine)]), None)
    names = Rows.__dataclass_fields__
    items = np.where(np.arange(HARD) % 4 == 3, NO_ITEM, rng.integers(5, 15, HARD))[further]
    return Batch(packed, Rows(**{name: getattr(rows, name)[own] for name in names}), items if hard else None)


def teacher_of(case: str, dtype: torch.dtype = torch.float32) -> Teacher | None:
    """Another encoder, where the case has one to learn from."""
    return Teacher(model(seed=4).to(dtype).encoder.eval(), "another", 0.7) if "distilled" in case else None


def torch_gradients(ranks: Ranks, case: str = "plain", checkpointing: bool = False) -> tuple[float, list[torch.Tensor]]:
    """Mean loss over ranks and averaged gradients in float64, without DeepSpeed."""
    made = model().double()
    made.encoder.encoder.checkpointing = checkpointing
    engine = TorchEngine(made, torch.optim.SGD(made.parameters()), ranks)
    teacher = teacher_of(case, torch.float64)
    found, backward = contrastive_step(engine, share(ranks, "hard" in case), CASES[case], ranks, known_pairs(), teacher)
    backward()
    value = found.loss.detach().clone()
    if ranks.world > 1:
        dist.all_reduce(value)
    return float(value) / ranks.world, [p.grad for p in made.parameters()]


def spawned(rank: int, world: int, directory: str) -> None:
    """Entry of ``torch.multiprocessing.spawn``."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{directory}/store{world}", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=dt.timedelta(seconds=60))
    ranks = Ranks(rank, world)
    found: dict[Any, Any] = {
        (case, checkpointing): torch_gradients(ranks, case, checkpointing)
        for case in CASES
        for checkpointing in (False, True)
    }
    found["moved"] = torch_moved(ranks, torch.float64)
    if rank == 0:
        torch.save(found, f"{directory}/world{world}.pt")
    dist.barrier()
    dist.destroy_process_group()


def deepspeed_engine(stage: int, ranks: Ranks, checkpointing: bool = False, universal: bool = False) -> DeepSpeedEngine:
    """In fp32, clipping off."""
    made = model()
    made.encoder.encoder.checkpointing = checkpointing
    settings = {
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 100_000, "allgather_bucket_size": 100_000},
    }
    adam = optimizer(parameter_groups(made, lr=1e-3, weight_lr=5.0, layers_lr=0.5))
    return DeepSpeedEngine(made, adam, settings, ROWS // ranks.world, universal)


def deepspeed_gradients(stage: int, ranks: Ranks, case: str, checkpointing: bool) -> tuple[float, list[torch.Tensor]]:
    """Norm as the engine says it, and gradients as DeepSpeed averages them."""
    from deepspeed.utils import safe_get_full_grad

    engine = deepspeed_engine(stage, ranks, checkpointing)
    _, backward = contrastive_step(engine, share(ranks, "hard" in case), CASES[case], ranks, known_pairs(), teacher_of(case))
    backward()
    norm = engine.gradient_norm()
    return norm, [safe_get_full_grad(parameter).clone() for parameter in engine.engine.module.parameters()]


def moved(engine: Engine, ranks: Ranks) -> dict[str, float]:
    """How far Adam moves each group in the third step, the first in which the layers take part."""
    weights: dict[str, torch.Tensor] = {}
    for step in range(3):
        weights = {name: value.clone() for name, value in engine.weights().items()}
        engine.encoder.layers_on = step == 2
        _, backward = contrastive_step(engine, share(ranks), LOOP, ranks, known_pairs())
        backward()
        engine.step({"table": 1.0, "weights": 1.0, "layers": float(step == 2)})
    found: dict[str, float] = {"table": 0.0, "layers": 0.0}
    for name, value in engine.weights().items():
        group = "table" if "word_embeddings" in name or name.endswith("_weights") else "layers"
        found[group] += float((value - weights[name]).square().sum())
    return found


def torch_moved(ranks: Ranks, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """The same without DeepSpeed."""
    made = model().to(dtype)
    adam = optimizer(parameter_groups(made, lr=1e-3, weight_lr=5.0, layers_lr=0.5))
    return moved(TorchEngine(made, adam, ranks), ranks)


def refused_load(engine: DeepSpeedEngine, directory: Path) -> str:
    """What an engine has against a directory with nothing in it."""
    try:
        engine.load(directory)
    except RuntimeError as error:
        return str(error)
    return ""


def variants() -> Iterator[tuple[int, str, bool]]:
    """ZeRO stage, case, and whether activations are checkpointed."""
    for stage in range(4):
        for case in ("plain", "several positives, margin", "matryoshka", "distilled hard negatives", "cached"):
            if stage < 3 or case != "cached":
                yield from ((stage, case, checkpointing) for checkpointing in (False, True))


def launched(directory: Path) -> None:
    """Entry of DeepSpeed's launcher."""
    from model.worker import join, leave

    torch.set_num_threads(1)
    ranks = join("cpu", timeout_minutes=1.0)
    engines = [deepspeed_engine(stage, ranks) for stage in range(4)]
    found: dict[str, Any] = {
        "gradients": {variant: deepspeed_gradients(variant[0], ranks, *variant[1:]) for variant in variants()},
        "moved": [moved(engine, ranks) for engine in engines],
        "refused": [refused_load(engine, directory) for engine in engines],
    }
    if ranks.rank == 0:
        torch.save(found, directory / "found.pt")
    dist.barrier()
    dist.destroy_process_group()
    leave(0)


if __name__ == "__main__":
    launched(Path(sys.argv[1]))
