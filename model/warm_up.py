"""Build DeepSpeed's shared-memory op for several CPU ranks once, at set-up, instead of inside the first training."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from etl.errors import EXIT_OK
from etl.job import configure_logging

log = logging.getLogger("model.warm_up")

STALE_SECONDS = 600.0
"""Age of a lock that no build can still hold: one takes 40 to 70 s."""


def main(argv: Sequence[str] | None = None) -> int:
    """Build, or say why it cannot be built; training then goes without it, so the exit code is 0 either way."""
    argparse.ArgumentParser(prog="python -m model.warm_up", description=__doc__, allow_abbrev=False).parse_args(argv)
    configure_logging()
    # ninja, which builds it, lies beside our interpreter.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        log.warning(
            "no C++ compiler (%s) on PATH: training on several CPU ranks will lack DeepSpeed's shared-memory op", compiler
        )
        return EXIT_OK
    started = time.monotonic()
    try:
        build()
    except (OSError, RuntimeError) as error:
        log.warning("DeepSpeed's shared-memory op cannot be built: %s", str(error).splitlines()[0])
    else:
        log.info("DeepSpeed's shared-memory op is ready (%.0f s)", time.monotonic() - started)
    return EXIT_OK


def build_beside_environment() -> None:
    """Let torch keep what it compiles in this environment, where it may write there.

    Of its cache in the home directory each of two environments builds the other's anew (38 s, by their include paths),
    and a rank that is killed meanwhile leaves a lock for which every later training waits. So does one that is killed while
    it looks whether the op is built; what is older than any build is removed.
    """
    if os.access(sys.prefix, os.W_OK):
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions"))
    for lock in Path(os.environ.get("TORCH_EXTENSIONS_DIR", os.devnull)).glob("*/lock"):
        with contextlib.suppress(FileNotFoundError):  # another rank was faster
            if time.time() - lock.stat().st_mtime > STALE_SECONDS:
                lock.unlink()
                log.warning("%s was left by a process that was killed, and is removed", lock)


def build() -> None:
    """Compile the op, or find it compiled."""
    build_beside_environment()
    from deepspeed.accelerator import get_accelerator  # takes seconds

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    with contextlib.redirect_stdout(io.StringIO()):
        builder.load(verbose=False)


if __name__ == "__main__":
    sys.exit(main())
