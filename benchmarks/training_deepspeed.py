"""Steps of several engines on two ranks, started by DeepSpeed's own launcher: what DeepSpeed costs, and what is sent."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from statistics import median

from rich.table import Table

from benchmarks.deepspeed_worker import Step, Task
from benchmarks.pacing import interval
from benchmarks.scaling import PLAIN, StepShape, bytes_sent
from labeling.machine import hardware
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.launch import command, environment, run_watched
from model.presets import PRESETS, EncoderConfig

RANKS = 2
BATCH = 64
WARM_UP = 1


def measure(task: Task) -> list[Step]:
    """Every step of every engine.

    Raises:
        RuntimeError: a rank failed; it has said why.
    """
    code = run_watched(
        command("benchmarks.deepspeed_worker", [json.dumps(asdict(task))], ranks=RANKS),
        environment(RANKS, "cpu", local=True),
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
