"""A machine's name in a few words that can stand in a file's name: results lie beside those of other hardware."""

from __future__ import annotations

import re

import torch

from labeling.machine import check_cpu, cpu_model

_NOISE = re.compile(r"\((?:r|tm)\)|@.*|\b(?:cpu|processor|\d+-core)\b", re.IGNORECASE)


def slug(model: str, cores: int, instructions: str, gpu: str = "") -> str:
    """Lower-case words with hyphens, such as ``amd-epyc-2-cores-avx2``.

    Args:
        model: Of the CPU, as /proc/cpuinfo has it.
        cores: That may be used.
        instructions: The best set of them, such as ``avx512_bf16``; may be empty.
        gpu: Its name; empty where there is none.
    """
    words = (_NOISE.sub(" ", model), f"{cores} core{'s' * (cores != 1)}", instructions, gpu)
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def this_machine() -> str:
    """The name of the machine that we run on."""
    # "MODEL, 2 cores, avx512f, avx2": the best set comes first.
    cores, best, *_ = check_cpu().found.removeprefix(f"{cpu_model()}, ").split(", ")
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    return slug(cpu_model(), int(cores.split()[0]), best, gpu)
