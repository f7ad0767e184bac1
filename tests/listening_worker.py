"""One rank that meets the others, makes a collective, and leaves the addresses on which it and its launcher listen."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import torch
from torch import distributed as dist

from model.worker import join, leave
from tests.listening import listeners

if __name__ == "__main__":
    ranks = join("cpu", timeout_minutes=1.0, engine=sys.argv[2])
    gathered = torch.ones(1)
    dist.all_reduce(gathered)
    assert int(gathered) == ranks.world == 2
    if ranks.rank == 0:
        launchers = [p for p in psutil.Process().parents() if "tests.listening_worker" in p.cmdline()]
        assert launchers
        found = listeners([psutil.Process(), *launchers])
        (Path(sys.argv[1]) / "listeners.json").write_text(json.dumps(found))
    dist.barrier()
    leave(0)
