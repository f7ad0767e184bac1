"""The text that stands for an item: a template over catalogue columns, such as ``{title} {brand}``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter


@dataclass(frozen=True, slots=True)
class ProductTemplate:
    """Names of catalogue columns in braces, and text between them; ``{{`` and ``}}`` are braces.

    Raises:
        ValueError: no column is named, or something else than a name stands in braces.
    """

    pattern: str = "{title}"

    def __post_init__(self) -> None:
        try:
            fields = [field for field in Formatter().parse(self.pattern) if field[1] is not None]
        except ValueError as error:
            raise ValueError(f"template {self.pattern!r} cannot be read: {error}") from None
        bad = [field[1] for field in fields if not str(field[1]).isidentifier() or field[2] or field[3]]
        if bad or not fields:
            found = f"found {bad} with more than a name, or no name" if bad else "found none"
            raise ValueError(
                f"template {self.pattern!r}: expected one or more names of catalogue columns in braces, like "
                f"'{{title}} {{brand}}', without formats or attributes; {found}"
            )

    @property
    def parts(self) -> tuple[tuple[str, str | None], ...]:
        """(text, name of the column that follows it); None after the last."""
        return tuple((text, column) for text, column, _, _ in Formatter().parse(self.pattern))

    @property
    def columns(self) -> tuple[str, ...]:
        """The named columns, each once."""
        return tuple(dict.fromkeys(column for _, column in self.parts if column is not None))

    def render(self, values: Mapping[str, str | None]) -> str | None:
        """The text of one item; a value that is null or missing renders as nothing, and if all are the text is None."""
        if all(values.get(column) is None for column in self.columns):
            return None
        return "".join(text + ((column and values.get(column)) or "") for text, column in self.parts)
