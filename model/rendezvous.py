"""Where the ranks of a training meet: on one machine by its loopback alone, on several by what their hostfile opens.

Torch's key-value store has no password, and by itself it listens on every interface of the machine that rank 0 is on.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import Mapping

from torch import distributed as dist

from model.hosts import name_interface

LOOPBACK = "127.0.0.1"


def on_one_machine(variables: Mapping[str, str] = os.environ) -> bool:
    """Whether all ranks are on this machine, by what DeepSpeed's launcher or torch's says; no word of it means so."""
    local = variables.get("LOCAL_SIZE") or variables.get("LOCAL_WORLD_SIZE") or variables["WORLD_SIZE"]
    return local == variables["WORLD_SIZE"]


def meet(backend: str, timeout: dt.timedelta) -> None:
    """Make the default process group of all ranks, whose places the launcher has put into the environment.

    On one machine the store and the collectives of gloo and NCCL listen on the loopback, whatever ``MASTER_ADDR`` says.

    Raises:
        InputError: there are several machines and this one has no way to the first.
    """
    alone = on_one_machine()
    name_interface(LOOPBACK if alone else os.environ["MASTER_ADDR"], alone=alone)
    if not alone:
        dist.init_process_group(backend, timeout=timeout)
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=_store(rank, world, timeout), rank=rank, world_size=world, timeout=timeout)


def _store(rank: int, world: int, timeout: dt.timedelta) -> dist.Store:
    port = int(os.environ["MASTER_PORT"])
    if rank:
        return dist.TCPStore(LOOPBACK, port, world, is_master=False, timeout=timeout)
    listener = socket.create_server((LOOPBACK, port), backlog=world)  # the store closes it
    return dist.TCPStore(LOOPBACK, port, world, is_master=True, timeout=timeout, master_listen_fd=listener.detach())
