"""Which number format the encoder computes in, chosen by looking at the machine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

from etl.errors import InputError

log = logging.getLogger(__name__)

Chosen = Literal["fp32", "bf16", "fp16"]
Precision = Literal["auto"] | Chosen


def choose(precision: Precision, device: str, *, amx: bool | None = None) -> Chosen:
    """``auto`` is bf16 on a GPU and on a CPU with AMX, fp32 elsewhere: without AMX bf16 is emulated and slow.

    Args:
        precision: As configured.
        device: Where to compute.
        amx: Whether every machine that computes has it; None: look at this one.

    Raises:
        InputError: fp16 on a CPU, where DeepSpeed refuses it.
    """
    if precision == "fp16" and not device.startswith("cuda"):
        raise InputError(f"precision fp16 on {device}: DeepSpeed has it on GPUs only; take bf16 (fast with AMX) or fp32")
    if precision != "auto":
        log.info("precision %s on %s, as configured", precision, device)
        return precision
    amx = has_amx() if amx is None else amx
    chosen: Chosen = "bf16" if device.startswith("cuda") or amx else "fp32"
    reason = "a GPU" if device.startswith("cuda") else "AMX" if amx else "no AMX, where bf16 is slower"
    log.info("precision %s on %s (%s)", chosen, device, reason)
    return chosen


def autocast(precision: Chosen, device: str) -> Callable[[], AbstractContextManager[None]]:
    """Context in which matrix products run in ``precision``; parameters stay fp32 (under fp16 DeepSpeed casts them)."""
    if precision != "bf16":
        return contextlib.nullcontext
    return lambda: torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def has_amx() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and " amx_bf16" in info.read_text(encoding="utf-8", errors="replace")
