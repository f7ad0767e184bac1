"""Bytes that a rank sends in one training step (docs/training.md derives them), and what they make of many nodes."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

FLOAT = 4
IDS = 2 * 8 + 3 * 8
"""Of a row: query and item group, int64; weight and the two log-probabilities, float64."""
PLAIN = -1
"""In place of a ZeRO stage: torch's DistributedDataParallel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShape:
    """What decides the traffic of a step."""

    world: int
    """Ranks."""
    batch: int
    """Rows of a rank."""
    dim: int
    """Width of the embeddings."""
    parameters: int
    stage: int = PLAIN
    reduce_scatter: bool = False
    """Whether the backend has one (nccl); gloo makes an all-reduce of it."""


def bytes_sent(shape: StepShape) -> dict[str, float]:
    """Bytes that each rank sends, by phase: forward, embeddings (backward through the gather), backward, step.

    Of S bytes on each of W ranks an all-gather sends (W - 1) S and an all-reduce 2 (W - 1) / W S; a reduce-scatter of S
    sends half of an all-reduce. At stage 3 the parameters stay gathered from the forward pass to the backward one, as
    DeepSpeed leaves them below stage3_max_reuse_distance (10^9), and those it never parts with are gathered after the step.
    """
    others, share = shape.world - 1, (shape.world - 1) / shape.world
    vectors, model = 2 * shape.batch * shape.dim * FLOAT, shape.parameters * FLOAT
    gathered = share * model
    # At stages 1 and 2 DeepSpeed's default, use_multi_rank_bucket_allreduce, is an all-reduce whatever the backend has.
    scattered = shape.reduce_scatter and shape.stage == 3
    return {
        "forward": others * (vectors + shape.batch * IDS) + (gathered if shape.stage == 3 else 0.0),
        "embeddings": (1 if shape.reduce_scatter else 2) * others * vectors,
        "backward": (1 if scattered else 2) * share * model,
        "step": gathered if shape.stage in (1, 2) else 0.0,
    }


PARAMETERS = 34_327_552
"""Of ``published``, a test counts them."""
BATCHES = (2_048, 16_384)
"""Pairs of a node; the larger ones in parts (cache_texts)."""
CACHED = 4 / 3
"""Computing of a batch in parts, of that of a batch at once: another forward pass."""
FLOP_PER_PAIR = 4.2e9
"""Of ``published`` in training, at 7.5 + 29 tokens."""
FLOP_PER_SECOND = 0.4 * 790e12
"""A large GPU in bf16, two fifths used: an assumption, and the goal; nothing here has been run on one."""
NODES = (5, 8, 16, 32, 64)
GIGABITS = (10, 25, 100)


def step_seconds(shape: StepShape, gigabits: float) -> tuple[float, float]:
    """Seconds of a step in which a rank computes, encoder and loss, and in which it sends; nothing is sent meanwhile."""
    loss = 16 * shape.batch * shape.world * shape.batch * shape.dim  # two sides, four products each
    encoding = shape.batch * FLOP_PER_PAIR * (CACHED if shape.batch > BATCHES[0] else 1)
    computing = (encoding + loss) / FLOP_PER_SECOND
    sending = sum(bytes_sent(shape).values()) * 8 / (gigabits * 1e9)
    return computing, sending


def efficiency(shape: StepShape, gigabits: float) -> float:
    """Share of the time of a step in which it computes."""
    computing, sending = step_seconds(shape, gigabits)
    return computing / (computing + sending)


def scaling_table() -> Table:
    """Computed, not measured: nodes of one GPU each, that computes as assumed above, by plain DDP or ZeRO 1 over nccl."""
    title = f"published, {FLOP_PER_SECOND / 1e12:.0f} TFLOP/s a node (assumed): share of a step in which it computes"
    table = Table("pairs a node", "nodes", "MB sent a node", *(f"{gb} Gb/s" for gb in GIGABITS), title=title)
    for batch in BATCHES:
        for nodes in NODES:
            shape = StepShape(world=nodes, batch=batch, dim=512, parameters=PARAMETERS, stage=1, reduce_scatter=True)
            shares = (f"{efficiency(shape, gb):.0%}" for gb in GIGABITS)
            table.add_row(f"{batch:,}", str(nodes), f"{sum(bytes_sent(shape).values()) / 1e6:,.0f}", *shares)
    return table
