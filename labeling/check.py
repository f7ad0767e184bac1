"""A finding of the audit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One row of QUALITY: ``value`` is None where there is nothing to compare with, which passes."""

    name: str
    value: float | None
    expected: str
    passed: bool
    hard: bool = True
