"""DeepSpeed's universal format: what the ranks of a ZeRO training saved in parts, put together for any number of ranks."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import shutil
from pathlib import Path

from model.engines import ENGINE_TAG
from model.safe_load import weights_only

log = logging.getLogger(__name__)

PARTS = ("fp32.pt", "exp_avg.pt", "exp_avg_sq.pt")
"""What there is of every parameter: its weights and Adam's moments."""


def to_universal(checkpoint: Path, made: Path) -> None:
    """Convert the parts that :meth:`model.engines.DeepSpeedEngine.save` left in ``checkpoint`` (ZeRO 1 to 3).

    Args:
        checkpoint: Directory with the parts of all ranks, which stays as it is.
        made: Directory for the result, as large again; what is there is removed.

    Raises:
        RuntimeError: weights or moments of a parameter are missing in the result.
    """
    from deepspeed.checkpoint import ds_to_universal  # takes seconds, and sets up logging of its own

    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    # One worker each, which is this process: more would be forks of one that has threads.
    settings = argparse.Namespace(
        input_folder=str(checkpoint / ENGINE_TAG),
        output_folder=str(made / ENGINE_TAG),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    said = io.StringIO()
    with weights_only(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        ds_to_universal.main(settings)
    _require_whole(made / ENGINE_TAG / "zero")
    for file in checkpoint.glob("*.pt"):  # what is whole already, like the mean of the weights
        shutil.copy2(file, made)


def _require_whole(zero: Path) -> None:
    parameters = sorted(path for path in zero.iterdir() if path.is_dir())
    missing = [f"{path.name}/{part}" for path in parameters for part in PARTS if not (path / part).is_file()]
    if missing or not parameters:
        raise RuntimeError(f"the universal checkpoint lacks {', '.join(missing) or 'all parameters'}")
