"""What this machine is: processor, GPU, memory, room on its disks."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MEMORY_GB = (4, 8)  # Spark's driver takes 4 by default, two training ranks about 1 each
SCRATCH_GB = (1, 5)
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis."""

    what: str
    status: Literal["ok", "warn", "fail"]
    found: str
    cure: str = ""


def hardware() -> str:
    """This machine in a few words, for results that must name it."""
    return "; ".join(f"{finding.what}: {finding.found}" for finding in (check_cpu(), check_memory(), check_gpu()))


def cpu_model() -> str:
    match = re.search(r"model name\s*:\s*(.+)", _cpuinfo())
    return match[1].strip() if match else platform.processor() or platform.machine()


def check_cpu() -> Finding:
    flags = _cpu_flags()
    fast = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{cpu_model()}, {cores} cores, {', '.join(fast) or 'no AVX2'}"
    return Finding("CPU", "ok" if cores > 1 else "warn", found, "" if cores > 1 else "one core: expect twice the time")


def check_memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return amount("memory", total, MEMORY_GB, f"{total:.0f} GB", "lower --driver-memory, or use a larger machine")


def check_gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("GPU", "ok", ", ".join(names))
    if shutil.which("nvidia-smi"):
        return Finding(
            "GPU", "warn", "nvidia-smi is there, torch sees no GPU", "check the driver against the CUDA build of torch"
        )
    return Finding("GPU", "ok", "none: everything runs on the CPU")


def check_scratch() -> Finding:
    """Where Spark spills to."""
    directory = Path(os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")[0])
    if not os.access(directory, os.W_OK):
        return Finding("scratch", "fail", f"{directory} is not writable", "set SPARK_LOCAL_DIRS to a directory that is")
    free = shutil.disk_usage(directory).free / GIB
    return amount("scratch", free, SCRATCH_GB, f"{free:.0f} GB free at {directory}", "set SPARK_LOCAL_DIRS to a larger disk")


def amount(what: str, value: float, limits: tuple[int, int], found: str, cure: str) -> Finding:
    """A quantity that fails below the first limit and warns below the second."""
    status: Literal["ok", "warn", "fail"] = "fail" if value < limits[0] else "warn" if value < limits[1] else "ok"
    return Finding(what, status, found, "" if status == "ok" else f"{cure} (wanted: {limits[1]} GB)")


def _cpuinfo() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _cpu_flags() -> set[str]:
    match = re.search(r"^flags\s*:\s*(.+)$", _cpuinfo(), flags=re.MULTILINE)
    return set(match[1].split()) if match else set()
