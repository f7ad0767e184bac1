"""Steps of several engines on two ranks, started by DeepSpeed's own launcher: what DeepSpeed costs, and what is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Literal

from rich.progress import track
from rich.table import Table

from benchmarks.speed.deepspeed_worker import Step, Task
from benchmarks.speed.pacing import interval
from benchmarks.speed.scaling import PLAIN, StepShape, bytes_sent
from labeling.machine import hardware
from labeling.terminal import console
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.launch import command, environment, run_watched
from model.precision import Chosen
from model.presets import PRESETS, EncoderConfig

RANKS = 2
BATCH = 64
WARM_UP = 1
PRECISIONS: Mapping[str, tuple[Chosen, ...]] = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}
"""What DeepSpeed takes there."""


def measure(task: Task, ranks: int = RANKS) -> list[Step]:
    """Every step of every engine.

    Raises:
        RuntimeError: a rank failed; it has said why.
    """
    code = run_watched(
        command("benchmarks.speed.deepspeed_worker", [json.dumps(asdict(task))], ranks=ranks),
        environment(ranks, task.device, local=True),
    )
    if code:
        raise RuntimeError(f"the ranks ended with {code}")
    return [Step(**one) for one in json.loads(Path(task.out).read_text(encoding="utf-8"))]


def shape(task: Task, stage: int) -> StepShape:
    """Of a step of that task, for the formula."""
    config = EncoderConfig.from_json(task.encoder)
    parameters = sum(p.numel() for p in DualEncoder(Encoder(config)).parameters())
    return StepShape(world=RANKS, batch=task.batch, dim=config.dim, parameters=parameters, stage=stage)


def overhead(directory: Path, steps: int) -> Table:
    """CPU seconds of a step under DeepSpeed beside plain torch, and bytes sent beside the formula."""
    encoder = PRESETS["published"].encoder.to_json()
    task = Task(stages=[PLAIN, 0, 1], encoder=encoder, batch=BATCH, steps=steps + WARM_UP, out=str(directory / "steps.json"))
    found = measure(task)
    title = f"published, {RANKS} ranks (gloo) of {BATCH} pairs, on {hardware()}"
    table = Table("engine", "CPU s a step", "of plain torch", "MB sent a rank", "of the formula", title=title)
    seconds = {stage: [one.cpu for one in found if one.stage == stage][WARM_UP:] for stage in task.stages}
    for stage in task.stages:
        ratio, low, high = interval(seconds[stage], seconds[PLAIN])
        sent = median(sum(one.phases.values()) / RANKS for one in found if one.stage == stage)
        wanted = sum(bytes_sent(shape(task, stage)).values())
        cells = (f"{median(seconds[stage]):.2f}", f"{ratio:.3f} ({low:.3f} to {high:.3f})")
        name = "plain torch" if stage == PLAIN else f"DeepSpeed, stage {stage}"
        table.add_row(name, *cells, f"{sent / 1e6:.1f}", f"{sent / wanted:.3f}")
    return table


def memory(directory: Path, steps: int, device: Literal["cpu", "cuda"], batch: int) -> Table:
    """Peak memory and time of a step by ZeRO stage, activation checkpointing and precision, each in new processes.

    On the CPU two ranks share the optimizer's state; on a GPU it is one, which has nobody to share with.
    """
    ranks, stages, unit = (RANKS, (0, 1, 2, 3), "CPU s") if device == "cpu" else (1, (0,), "s")
    encoder = PRESETS["published"].encoder.to_json()
    title = f"published, {ranks} rank{'s' * (ranks > 1)} of {batch} pairs, on {hardware()}"
    names = ("ZeRO", "precision", "checkpointing", "GB a rank", "of the first", f"{unit} a step", "of the first")
    table, base = Table(*names, title=title), (0.0, 0.0)
    cells = [(s, p, c) for p in PRECISIONS[device] for s in stages for c in (False, True)]
    for stage, precision, checkpointing in track(cells, "trainings", console=console()):
        task = Task(
            stages=[stage],
            encoder=encoder,
            batch=batch,
            steps=steps + WARM_UP,
            out=str(directory / "steps.json"),
            checkpointing=checkpointing,
            precision=precision,
            device=device,
        )
        found = measure(task, ranks)
        taken = [one.cpu if device == "cpu" else one.wall for one in found[WARM_UP:]]
        gigabytes, seconds = found[-1].memory / 1e9, median(taken)
        base = base if base[0] else (gigabytes, seconds)
        shares = (f"{gigabytes:.2f}", f"{gigabytes / base[0]:.2f}", f"{seconds:.3f}", f"{seconds / base[1]:.2f}")
        row = (str(stage), precision, "yes" if checkpointing else "no", *shares)
        console().print(", ".join(f"{name} {value}" for name, value in zip(names, row, strict=True)))  # it takes long
        table.add_row(*row)
    return table
