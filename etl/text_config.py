"""What of an item and of a text counts: settings that pairs, dataset and training share, and that a bundle then carries."""

from __future__ import annotations

from typing import ClassVar

from pydantic import field_validator

from etl.config import JobConfig
from etl.product_template import ProductTemplate
from etl.text import Normaliser


class TextConfig(JobConfig):
    """Section ``[text]``; labelling has no such settings, it takes those of the bundle."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "text")

    simplified_chinese: bool = False
    """Traditional Chinese characters count as simplified ones: 運動鞋 and 运动鞋 are one query."""

    product_text: str = "{title}"
    """The text that stands for an item: names of catalogue columns in braces, like '{title} {brand}'."""

    @field_validator("product_text")
    @classmethod
    def _is_template(cls, value: str) -> str:
        return ProductTemplate(value).pattern

    @property
    def normaliser(self) -> Normaliser:
        return Normaliser(simplified=self.simplified_chinese)
