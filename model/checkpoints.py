"""Checkpoints of a training: whole or not there, found again after a crash, the last few kept.

Each is a directory ``step-00000200`` that was written aside, hashed, given a COMPLETE manifest and renamed. DeepSpeed's own
``latest`` is not used: it is not written atomically, and of truncated files one rank raises where another believes that it
loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist

from model.engines import Engine
from model.positions import Position
from model.progress import Curve
from model.ranks import Ranks
from model.universal import to_universal

log = logging.getLogger(__name__)

COMPLETE = "COMPLETE.json"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint whose files are all as its manifest says."""

    path: Path
    position: Position
    progress: Curve

    @classmethod
    def of(cls, path: Path, manifest: Mapping[str, Any]) -> Found:
        """The one under ``path``.

        Raises:
            KeyError, TypeError, ValueError: its manifest is of another version.
        """
        return cls(path, Position(**manifest["position"]), Curve.from_json(manifest["progress"]))


class Checkpoints:
    """Those of one training, in a directory that all ranks share."""

    def __init__(self, directory: Path, ranks: Ranks, keep: int = 2) -> None:
        self.directory, self.ranks, self.keep = directory, ranks, keep

    def save(self, engine: Engine, position: Position, progress: Curve) -> None:
        """Write one, and remove all but the newest ``keep``; every rank calls this after the same step.

        Args:
            engine: Its weights and optimizer.
            position: After which batches, of which settings.
            progress: What the loop goes on from.
        """
        final = self.directory / f"step-{position.step:08d}"
        aside = final.with_suffix(".partial")
        if self.ranks.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        self._wait()
        engine.save(aside)
        torch.save(_random_state(engine.device), aside / f"random-{self.ranks.rank}.pt")
        self._wait()
        if self.ranks.rank == 0:
            files = {str(f.relative_to(aside)): _digest(f) for f in sorted(aside.rglob("*")) if f.is_file()}
            manifest = {"position": asdict(position), "progress": asdict(progress), "files": files}
            _write_durably(aside / COMPLETE, json.dumps(manifest))
            shutil.rmtree(final, ignore_errors=True)
            aside.rename(final)
            for old in self._steps()[self.keep :]:
                shutil.rmtree(old)
            log.info("checkpoint after step %d: %s", position.step, final)
        self._wait()

    def newest(self) -> Found | None:
        """The newest one that is whole, the same on every rank; says loudly which newer ones are not."""
        name = ""
        if self.ranks.rank == 0:
            for path in self._steps():
                problem = _problem(path)
                if problem is None:
                    name = path.name
                    break
                log.warning("checkpoint %s is not used: %s; falling back to the one before it", path, problem)
        name = self._told(name)
        if not name:
            return None
        return Found.of(self.directory / name, _manifest(self.directory / name))

    def load(self, engine: Engine, found: Found) -> None:
        """Put weights, optimizer and random numbers back as they were.

        Where another number of ranks saved parts of them, rank 0 first puts these together beside the checkpoint, in
        DeepSpeed's universal format, and removes that when all ranks have loaded it. A rank that fails raises at once: to
        tell the others it would have to meet them, and they may be waiting for it within DeepSpeed. They end when it does.

        Raises:
            RuntimeError: this rank could not.
        """
        universal = self.directory / "universal.partial"
        resized = engine.sharded and found.position.world != self.ranks.world
        try:
            if resized and self.ranks.rank == 0:
                to_universal(found.path, universal)
            self._wait()
            self._load(engine, found, universal if resized else found.path)
        except Exception as error:  # whatever it is, it has to say of which checkpoint and rank
            what = f"rank {self.ranks.rank}: {type(error).__name__}: {error}"
            raise RuntimeError(f"checkpoint {found.path} cannot be loaded: {what}") from error
        self._wait()
        if resized and self.ranks.rank == 0:
            shutil.rmtree(universal)

    def _load(self, engine: Engine, found: Found, path: Path) -> None:
        engine.load(path)
        if self.ranks.rank < found.position.world:
            state = torch.load(found.path / f"random-{self.ranks.rank}.pt", weights_only=True)
            _set_random_state(engine.device, state)
        else:
            key = (int(found.position.settings.get("seed", 0)), found.position.step, self.ranks.rank)
            torch.manual_seed(int(np.random.default_rng(key).integers(2**63)))

    def remove(self) -> None:
        """All of them: the training is over, or starts afresh."""
        if self.ranks.rank == 0:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _steps(self) -> list[Path]:
        """Newest first; half-written ones are left out, and links, which are none of ours."""
        found = (p for p in self.directory.glob("step-*") if p.is_dir() and not p.suffix and not p.is_symlink())
        return sorted(found, reverse=True)

    def _wait(self) -> None:
        if self.ranks.world > 1:
            dist.barrier()

    def _told(self, name: str) -> str:
        """What rank 0 says, on every rank."""
        if self.ranks.world == 1:
            return name
        names = [name]
        dist.broadcast_object_list(names)
        return names[0]


def _problem(path: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None."""
    try:
        manifest = _manifest(path)
        Found.of(path, manifest)
        files = dict[str, str](manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{COMPLETE} cannot be read ({type(error).__name__}: {error})"
    missing = [name for name in files if not (path / name).is_file()]
    if missing:
        return f"{', '.join(missing)} is missing"
    changed = [name for name, digest in files.items() if _digest(path / name) != digest]
    return f"{', '.join(changed)} is not what was written" if changed else None


def _manifest(path: Path) -> Any:
    return json.loads((path / COMPLETE).read_text(encoding="utf-8"))


def _digest(file: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _write_durably(file: Path, text: str) -> None:
    with file.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(device: torch.device, state: Mapping[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
