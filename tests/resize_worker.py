"""One rank under DeepSpeed's launcher that trains and saves, or loads what another number of ranks saved, at ZeRO 0 to 3.

Run as ``python -m tests.resize_worker DIRECTORY save`` or ``… load WORLD``, with the number of ranks that saved.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from model.checkpoints import Checkpoints
from model.engines import DeepSpeedEngine
from model.positions import Position
from model.progress import Curve
from model.ranks import Ranks
from model.trainer import contrastive_step
from model.worker import join, leave
from tests.gradient_worker import LOOP, deepspeed_engine, known_pairs, share

STEPS = 3
"""Before the checkpoint; the layers join in the last of them."""


def step(engine: DeepSpeedEngine, ranks: Ranks, number: int) -> None:
    layers = number >= STEPS - 1
    engine.encoder.layers_on = layers
    _, backward = contrastive_step(engine, share(ranks), LOOP, ranks, known_pairs())
    backward()
    engine.step({"table": 1.0, "weights": 1.0, "layers": float(layers)})


def state(engine: DeepSpeedEngine) -> dict[str, Any]:
    """Weights, Adam's moments and its steps, whole on every rank."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if engine.stage in (1, 2):  # DeepSpeed links the state of the first group only, once, and not what replaces it
        engine.engine.optimizer._hp_optimizer_states_linked = False
        engine.engine.optimizer._lazy_init_hp_params_optimizer_state()
    found: dict[str, Any] = {}
    for name, parameter in engine.engine.module.named_parameters():
        if engine.stage:
            parts = [safe_get_full_optimizer_state(parameter, key) for key in ("exp_avg", "exp_avg_sq")]
            parts.append(safe_get_full_fp32_param(parameter))
        else:
            adam = engine.engine.optimizer.state[parameter]
            parts = [adam["exp_avg"], adam["exp_avg_sq"], parameter.detach()]
        found[name] = torch.stack([part.clone() for part in parts])
    groups = [{k: v for k, v in group.items() if k != "params"} for group in engine.engine.optimizer.param_groups]
    return {"parameters": found, "steps": engine.adam_steps(), "names": [(g["name"], g["base_lr"]) for g in groups]}


def run(directory: Path, saved_by: int | None, ranks: Ranks, stage: int) -> dict[str, Any]:
    """What the state is at the checkpoint, and one step after it."""
    resized = saved_by is not None and saved_by != ranks.world
    engine = deepspeed_engine(stage, ranks, universal=resized)
    checkpoints = Checkpoints(directory / f"stage{stage}-of-{saved_by or ranks.world}", ranks)
    if saved_by is None:
        for number in range(STEPS):
            step(engine, ranks, number)
        settings = {"seed": 1, "batch": 1, "crops": 0}
        checkpoints.save(engine, Position(step=STEPS, dataset="", world=ranks.world, settings=settings), Curve())
    else:
        found = checkpoints.newest()
        assert found is not None
        checkpoints.load(engine, found)
    there = state(engine)
    step(engine, ranks, STEPS)
    return {"checkpoint": there, "next": state(engine)}


def main(directory: Path, saved_by: int | None) -> None:
    torch.set_num_threads(1)
    ranks = join("cpu", timeout_minutes=5.0)
    found = {stage: run(directory, saved_by, ranks, stage) for stage in range(4)}
    if ranks.rank == 0:
        torch.save(found, directory / f"{saved_by or ranks.world}-to-{ranks.world}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[3]) if sys.argv[2] == "load" else None)
    leave(0)
