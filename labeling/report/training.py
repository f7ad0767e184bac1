"""What the report says of the training that made the bundle: its curves, and what it finds for held-out queries."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etl.durable import read_json
from etl.warehouse import Warehouse
from labeling.report.charts import Picture, lines
from labeling.report.page import Part
from labeling.sections import Section
from model.bundle import MANIFEST_FILE, METRICS_FILE

SHOWN = ("alignment", "uniformity", "gradient_norm")
"""Figures of TensorBoard drawn beside the loss: how near pairs are, how evenly all vectors spread (Wang and Isola 2020)."""

Points = Sequence[tuple[float, float]]


def training_part(warehouse: Warehouse, bundle: str, sections: Sequence[Section]) -> Part:
    """Curves of the bundle's training, above ``sections`` on its held-out queries; says so where the bundle is gone."""
    path = warehouse.bundle(bundle)
    title = "Training"
    if not (path / METRICS_FILE).is_file() or not (path / MANIFEST_FILE).is_file():
        return Part(name="training", title=title, words=(f"Bundle {bundle} is gone, and its training's figures with it.",))
    metrics, manifest = read_json(path / METRICS_FILE), read_json(path / MANIFEST_FILE)
    loss = [(float(step), float(value)) for step, value in metrics.get("curve", ())]
    words = [f"Bundle {bundle} was trained on the dataset of {manifest['ds']}{_effort(metrics)}."]
    pictures = []
    if len(loss) > 1:
        pictures.append(_curve("loss", loss))
        figures = tracked(warehouse.training_figures(dt.date.fromisoformat(manifest["ds"])), SHOWN, loss)
        if figures:
            pictures += [_curve(name, points) for name, points in figures.items()]
        else:
            words.append("TensorBoard's files of this training are no longer there: only the loss is kept in the bundle.")
    else:
        words.append("Its metrics hold no curve.")
    return Part(name="training", title=title, words=words, pictures=pictures, tables=sections)


def tracked(directory: Path, names: Sequence[str], loss: Points) -> dict[str, Points]:
    """Curves from TensorBoard's files, if they are of the training whose ``loss`` is given; else none.

    A directory holds the last training on a day's dataset, which may have made another bundle.
    """
    if not any(directory.glob("events.out.tfevents.*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # half a second

    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    known = events.Tags()["scalars"]
    curves = {name: [(float(e.step), float(e.value)) for e in events.Scalars(name)] for name in known if "/" not in name}
    theirs = curves.get("loss", [])
    same = len(theirs) == len(loss) and all(
        a[0] == b[0] and math.isclose(a[1], b[1], rel_tol=1e-4) for a, b in zip(theirs, loss, strict=True)
    )
    return {name: curves[name] for name in names if len(curves.get(name, ())) > 1} if same else {}


def _curve(name: str, points: Points) -> Picture:
    what = name.replace("_", " ")
    alt = (
        f"{what} by step: from {points[0][1]:.3f} at step {points[0][0]:.0f} to {points[-1][1]:.3f} at {points[-1][0]:.0f}."
    )
    return lines({what: points}, ("step", what), alt, f"{what.capitalize()} by step")


def _effort(metrics: Mapping[str, Any]) -> str:
    """Steps and time, as far as the metrics have them."""
    steps, seconds = metrics.get("settings", {}).get("steps"), metrics.get("seconds")
    found = [f"{steps:,} steps" if steps else "", f"{seconds / 60:,.1f} minutes" if seconds else ""]
    return "".join(f", {each}" for each in found if each)
