"""The model card of a bundle (Mitchell et al. 2019): Markdown for people, made of nothing but the files beside it.

The manifest does not hash it, since calibration and gate come after the bundle, and no job reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from etl.durable import read_json, write, write_json
from etl.tokenizer_spec import SPEC_FILE
from model.bundle import MANIFEST_FILE, METRICS_FILE, read_calibration

CARD_FILE = "MODEL_CARD.md"
GATE_FILE = "gate.json"
"""What `labeller promote` said of the bundle last."""

NO_EVENTS = ("affected_days", "late", "pairs", "title_groups", "bad_files", "masked_titles")
"""Counts of the stage that makes pairs which are not of events."""


def record_gate(path: Path, verdict: Mapping[str, Any]) -> None:
    """Leave in the bundle at ``path`` what the promotion gate said of it, and write its card anew.

    Args:
        path: The bundle.
        verdict: ``ds`` of the queries, ``promoted``, ``problems``, the limits ``floor`` and ``tolerance``, and ``compared``
            with the champion: the fields of :class:`model.promote.Difference` and its ``bundle``; None without one.
    """
    write_json(path / GATE_FILE, verdict)
    write_card(path)


def write_card(path: Path) -> None:
    """Write the card of the bundle at ``path`` anew.

    Raises:
        InputError: there is no bundle, or its calibration is damaged.
    """
    write(path / CARD_FILE, model_card(path).encode())


def model_card(path: Path) -> str:
    """The card of the bundle at ``path``.

    Raises:
        InputError: as :func:`write_card`.
    """
    manifest, metrics = read_json(path / MANIFEST_FILE, "is no bundle"), read_json(path / METRICS_FILE)
    cleaning, lineage = metrics.get("cleaning") or {}, manifest["lineage"]
    cure = "delete it, `labeller promote` writes it again"
    gate = read_json(path / GATE_FILE, cure=cure) if (path / GATE_FILE).is_file() else None
    spec = read_json(path / SPEC_FILE)
    events = [(name, n) for name, n in cleaning.get("counts", {}).items() if name not in NO_EVENTS and n]
    measures = list(dict.fromkeys(name for row in metrics.get("heldout", {}).values() for name in row))
    template = Template(resources.files("model").joinpath("templates/model_card.md").read_text(encoding="utf-8"))
    return template.substitute(
        id=manifest["id"],
        ds=manifest["ds"],
        code=lineage.get("code") or "not on record",
        data=_data(manifest["ds"], cleaning.get("settings")),
        rows=_table(("rows of the dataset", "number"), _rows(metrics)),
        cleaned=_table(("events of the log, dropped by rule", "number"), events),
        effort=_effort(metrics),
        trained_with=_table(("setting", "value"), metrics.get("settings", {}).items()),
        heldout=_table(("split", "encoder", *measures), _heldout(metrics, measures)),
        slices=_table(("split", "slice", "queries", "recall@10", "low", "high"), _slices(metrics)),
        calibration="\n".join(_calibration(read_calibration(path))),
        gate="\n".join(_gate(gate)),
        max_query_tokens=spec["max_query_tokens"],
        max_title_tokens=spec["max_title_tokens"],
        licences="\n".join(_licences(lineage, metrics)),
        provenance=_table(("what", "which"), _provenance(manifest)),
    )


def _data(ds: str, settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return f"Clicks up to {ds}; how they were cleaned is not on record."
    return (
        f"Clicks of {settings['window_days']} days up to {ds}, cleaned by `labeller pairs` (`docs/cleaning.md`). A query "
        f"was used only if at least {settings['min_users']} distinct users asked it (k-anonymity). Queries with e-mail "
        "addresses, phone, card or identity numbers were dropped, and user ids end in that job."
    )


def _rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    yield from metrics.get("counts", {}).items()
    for what, key in (("queries", "languages"), ("titles", "scripts")):
        for kind, rows in metrics.get(key, {}).items():
            yield f"{what} to train on, {kind}", rows


def _effort(metrics: Mapping[str, Any]) -> str:
    steps, seconds, curve = metrics.get("settings", {}).get("steps"), metrics.get("seconds"), metrics.get("curve") or []
    if not steps or not seconds:
        return "Steps and time are not on record."
    loss = f"; the loss went from {curve[0][1]:.3f} to {curve[-1][1]:.3f}" if len(curve) > 1 else ""
    return f"{steps:,} steps in {seconds / 60:,.1f} minutes{loss}."


def _heldout(metrics: Mapping[str, Any], measures: Sequence[str]) -> Iterator[list[Any]]:
    for split, figures in metrics.get("heldout", {}).items():
        for encoder, key in (("trained", "heldout"), ("random start", "untrained"), ("as it started", "initial")):
            found = figures if key == "heldout" else metrics.get(key, {}).get(split)
            if found:
                yield [split, encoder, *(found.get(name) for name in measures)]


def _slices(metrics: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Those that have an interval."""
    for split, slices in metrics.get("slices", {}).items():
        for name, figures in slices.items():
            if isinstance(figures.get("recall@10"), list):
                yield [split, name, figures["queries"], *figures["recall@10"]]


def _calibration(stored: Mapping[str, Any] | None) -> Iterator[str]:
    if stored is None:
        yield "None yet: scores rank, and are no probabilities (`labeller calibrate`)."
        return
    content = stored["calibration"]
    yield f"Calibration {stored['id']}, fitted on clicks of {content.get('ds', 'a day that is not on record')}."
    yield ""
    for half in ("terms", "categories"):
        found = content.get(half)
        if not found:
            yield f"- {half}: not fitted."
            continue
        cases = f"{found.get('cases', 0):,} cases of {found.get('queries', 0):,} queries"
        if not found.get("calibrated"):
            yield f"- {half}: {cases}, which is too few of held-out ones: probabilities rank, and are no frequencies."
            continue
        error = found.get("first", {}).get("ece")
        said = (
            ""
            if error is None
            else f"; expected calibration error {error:.3f} where one half of the queries judges the other"
        )
        yield f"- {half}: {cases}{said}."


def _gate(verdict: Mapping[str, Any] | None) -> Iterator[str]:
    if verdict is None:
        yield "Not judged yet (`labeller promote`)."
        return
    word = "Passed" if verdict["promoted"] else "Refused"
    yield (
        f"{word}, on the held-out queries of {verdict['ds']}: recall@10 is wanted at {verdict['floor']} at least, above the "
        f"random start, and at most {verdict['tolerance']} behind the champion."
    )
    found = verdict["compared"]
    if found or verdict["problems"]:
        yield ""
    yield from (f"- {problem}" for problem in verdict["problems"])
    if found:
        sure = "" if found["low"] is None else f" (95% interval {found['low']:+.4f} to {found['high']:+.4f})"
        yield (
            f"- beside champion {found['bundle']}, on the same {found['queries']} queries of {found['split']}: "
            f"recall@10 {found['mean']:+.4f}{sure}"
        )


def _licences(lineage: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[str]:
    start, teacher = lineage.get("init"), metrics.get("settings", {}).get("teacher")
    if start is None:
        yield "- The training started from random weights."
    else:
        licence = start.get("licence") or "not stated there, so ask whoever provided it before the weights leave the house"
        yield f"- The training started from the weights {start['digest'][:16]} of {start['directory']}: licence {licence}."
    if teacher:
        yield f"- It was distilled from the encoder {teacher}, whose licence may bear on it."
    yield "- Clicks, titles and vocabulary are the shop's own."


def _provenance(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    lineage = manifest["lineage"]
    yield from ((name, value) for name, value in lineage.items() if name not in ("inputs", "init"))
    yield from ((f"input {name}", version) for name, version in lineage.get("inputs", {}).items())
    yield from ((f"SHA-256 of {name}", sha256) for name, sha256 in manifest["files"].items())


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    found = list(rows)
    if not found:
        return "(none on record)"
    lines = [columns, ["---"] * len(columns), *found]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if 0.001 <= abs(value) < 1000 else f"{value:g}"
    shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "-" if value is None else str(value)
    return shown.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
