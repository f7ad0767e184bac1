"""A small disk of its own that a test fills and frees again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.needs import require_or_skip


@dataclass(frozen=True)
class SmallDisk:
    """What is mounted at ``path``; a ballast file takes what is to be missing."""

    path: Path

    def fill(self, leaving: int = 0) -> None:
        """Take all room but so many bytes, of which a page is the least unit."""
        self.free()
        size = shutil.disk_usage(self.path).free - leaving
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def free(self) -> None:
        """Give all of it back."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"


@contextmanager
def mounted(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A tmpfs of so many megabytes while the context lasts."""
    require_or_skip("mount", "umount", root=True)
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)], check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
