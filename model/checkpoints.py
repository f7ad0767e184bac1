"""Checkpoints of a training: whole or not there, found again after a crash, the last few kept.

Each is a directory ``step-00000200`` that was written aside, hashed, given a COMPLETE manifest and renamed, and is renamed
again before it is removed: one of such a name that is not whole was damaged. DeepSpeed's own ``latest`` is not used: it is
not written atomically, and of truncated files one rank raises where another believes that it loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed as dist

from etl.disk import DiskFull, naming_full_disk
from etl.durable import is_sealed, sync_directory, sync_tree, write_sealed
from etl.errors import InputError
from model.engines import Engine
from model.positions import Position
from model.progress import Curve
from model.ranks import Ranks
from model.universal import to_universal

log = logging.getLogger(__name__)

T = TypeVar("T")

COMPLETE = "COMPLETE.json"
_CHUNK = 1 << 20
_BEFORE_SEALS = {"position", "progress", "files"}
"""Fields of a manifest of before they had a digest."""


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

        Raises:
            DiskFull: there is no room for it; those that are there stay.
        """
        final = self.directory / f"step-{position.step:08d}"
        aside = final.with_suffix(".partial")
        try:
            with naming_full_disk(self.directory):
                self._write(engine, position, progress, aside, final)
        except DiskFull:
            shutil.rmtree(aside, ignore_errors=True)  # others may need the room
            raise

    def _write(self, engine: Engine, position: Position, progress: Curve, aside: Path, final: Path) -> None:
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
            write_sealed(aside / COMPLETE, manifest)
            sync_tree(aside)
            if final.exists():  # a damaged one, which was passed over
                shutil.rmtree(_let_go(final))
            aside.rename(final)
            sync_directory(self.directory)
            for old in self._steps()[self.keep :]:
                shutil.rmtree(_let_go(old))
            log.info("checkpoint after step %d: %s", position.step, final)
        self._wait()

    def newest(self) -> Found | None:
        """The newest one that is whole, the same on every rank, or None; says loudly which newer ones are not.

        Raises:
            InputError: there are some and none is whole, on every rank; each is named with its reason.
        """
        name, problems = self._told(self._look() if self.ranks.rank == 0 else ("", {}))
        if not name and problems:
            raise InputError.of(
                [f"{step}: {problem}" for step, problem in problems.items()],
                heading=f"no checkpoint in {self.directory} is whole (expected at least one, of a training that has left "
                "some): copy one there again, or start afresh with --no-resume, which removes them:",
            )
        for step, problem in problems.items() if self.ranks.rank == 0 else ():
            log.warning("checkpoint %s is not used: %s; falling back to the one before it", self.directory / step, problem)
        return Found.of(self.directory / name, _manifest(self.directory / name)) if name else None

    def _look(self) -> tuple[str, dict[str, str]]:
        """Name of the newest one that is whole, or nothing; of those that are newer, or of all, what is wrong with each."""
        problems: dict[str, str] = {}
        for path in self._steps():
            if (problem := _problem(path)) is None:
                return path.name, problems
            problems[path.name] = problem
        return "", problems

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
            for path in self._steps():
                _let_go(path)
            shutil.rmtree(self.directory, ignore_errors=True)

    def _steps(self) -> list[Path]:
        """Newest first; half-written ones are left out, and links, which are none of ours."""
        found = (p for p in self.directory.glob("step-*") if p.is_dir() and not p.suffix and not p.is_symlink())
        return sorted(found, reverse=True)

    def _wait(self) -> None:
        if self.ranks.world > 1:
            dist.barrier()

    def _told(self, said: T) -> T:
        """What rank 0 says, on every rank."""
        if self.ranks.world == 1:
            return said
        told = [said]
        dist.broadcast_object_list(told)
        return told[0]


def _problem(path: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None."""
    try:
        manifest = _manifest(path)
        Found.of(path, manifest)
        files = dict[str, str](manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{COMPLETE} cannot be read ({type(error).__name__}: {error})"
    if not is_sealed(path / COMPLETE) and manifest.keys() != _BEFORE_SEALS:
        return f"{COMPLETE} is not what was written"
    missing = [name for name in files if not (path / name).is_file()]
    if missing:
        return f"{', '.join(missing)} is missing"
    changed = [name for name, digest in files.items() if _digest(path / name) != digest]
    return f"{', '.join(changed)} is not what was written" if changed else None


def _let_go(path: Path) -> Path:
    """Rename a checkpoint that is to be removed, so that a kill in the middle leaves no damaged one; returns where it is."""
    aside = path.with_suffix(".removing")
    shutil.rmtree(aside, ignore_errors=True)
    return path.rename(aside)


def _manifest(path: Path) -> Any:
    return json.loads((path / COMPLETE).read_text(encoding="utf-8"))


def _digest(file: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(device: torch.device, state: Mapping[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
