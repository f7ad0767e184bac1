"""A report as a list of sections, each shown as a table on a terminal or in a log and as Markdown in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Section:
    """One heading with a table of texts under it, and perhaps a sentence; ``folded`` columns may break lines."""

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    note: str = ""
    folded: tuple[int, ...] = ()


def show(section: Section, to: Console) -> None:
    """Print a section; numbers stand on the right."""
    to.print(f"\n[bold]{escape(section.title)}[/]")
    if section.columns:
        table = Table(header_style="bold", show_lines=len(section.folded) > 1)
        for position, name in enumerate(section.columns):
            numbers = all(is_number(row[position]) for row in section.rows)
            table.add_column(
                escape(name),
                justify="right" if numbers and section.rows else "left",
                no_wrap=position not in section.folded and not numbers,
                min_width=max((len(row[position]) for row in section.rows), default=0) if numbers else None,
                overflow="fold",
            )
        for row in section.rows:
            table.add_row(*map(escape, row))
        to.print(table)
    if section.note:
        to.print(section.note, markup=False, soft_wrap=True)


def markdown(section: Section) -> str:
    """The section as Markdown."""
    lines = [f"## {section.title}", ""]
    if section.columns:
        lines += [_line(section.columns), "|" + "---|" * len(section.columns), *map(_line, section.rows), ""]
    if section.note:
        lines += [section.note, ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"


def is_number(text: str) -> bool:
    """Whether a cell is a number as reports write it, or an empty one."""
    return text in ("", "-") or text.lstrip("+-−").replace(",", "").replace(".", "").replace("%", "").isdigit()
