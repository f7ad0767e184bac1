"""The nightly report as one static HTML file: what its parts are made of, and how they are laid down.

Nothing in it comes from elsewhere or runs: a policy in its head forbids scripts and requests, its pictures are inlined, and
every text passes through Jinja's escaping. See docs/decisions/report.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from etl.durable import write
from labeling.report.charts import Picture
from labeling.sections import Section, is_number

RESULTS = ("passed", "warning", "failed")
"""Cells that are marked by shape and colour, beside the word itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """A number that the page starts with."""

    name: str
    """By which it is found in the page: ``<data id=NAME value=VALUE>``."""
    label: str
    value: float | None
    """As the tables have it; None: not known."""
    shown: str
    before: str = ""
    """How it compares with the night before."""
    trend: Picture | None = None
    """Of the last nights; None where they are fewer than two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What stands under one heading of the page; a part of which nothing is known says so in ``words``."""

    name: str
    """Its anchor."""
    title: str
    words: Sequence[str] = ()
    """Paragraphs above the rest."""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Section] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """All of the report."""

    ds: str
    verdict: str
    """One of RESULTS: the worst that the audit found."""
    summary: str
    headlines: Sequence[Headline]
    parts: Sequence[Part]


def render(page: Page) -> str:
    """The page as HTML."""
    templates = Environment(
        loader=PackageLoader("labeling.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = templates.get_template("report.html")
    return template.render(page=page, results=RESULTS, numeric=_numeric, code=_code, breakable=_breakable)


def write_page(page: Page, file: Path) -> None:
    """Lay the page down by rename: who has it open sees the old one or the new one."""
    write(file, render(page).encode())


def _code(text: str) -> Markup:
    """A text whose `commands` stand between backticks."""
    parts = list(map(escape, text.split("`")))
    if len(parts) % 2 == 0:  # one of them has no other
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def _breakable(text: str) -> Markup:
    """A name that a narrow screen may break after its dots and underscores."""
    return escape(text).replace("_", Markup("_<wbr>")).replace(".", Markup(".<wbr>"))


def _numeric(table: Section) -> list[bool]:
    """Which columns hold numbers alone and stand on the right."""
    return [bool(table.rows) and all(is_number(row[n]) for row in table.rows) for n in range(len(table.columns))]
