from __future__ import annotations

import argparse

import pytest

from etl.config import from_args
from etl.dataset_config import DatasetConfig
from etl.errors import InputError
from etl.product_template import ProductTemplate
from etl.text import Normaliser
from tests.rows import DS


@pytest.mark.parametrize(
    ("pattern", "values", "text"),
    [
        ("{title}", {"title": " Air  Zoom\n"}, " Air  Zoom\n"),
        ("{title} {brand}", {"title": "Air Zoom", "brand": "Acme"}, "Air Zoom Acme"),
        ("{title} {brand}", {"title": "Air Zoom", "brand": None}, "Air Zoom "),
        ("{title} {brand}", {"title": None, "brand": "Acme"}, " Acme"),
        ("{title} {brand}", {"title": "Air Zoom"}, "Air Zoom "),
        ("{title} {brand}", {"title": None}, None),
        ("{{{title}}} of {品牌}!", {"title": "a {b}", "品牌": "{title}"}, "{a {b}} of {title}!"),
        ("{title} {title}", {"title": "a"}, "a a"),
    ],
)
def test_a_template_renders_its_columns_and_null_as_nothing(pattern, values, text):
    assert ProductTemplate(pattern).render(values) == text


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", "found none"),
        ("title", "found none"),
        ("{title", "cannot be read: expected '}'"),
        ("title}", "cannot be read: Single '}'"),
        ("{}", r"found \[''\]"),
        ("{0}", r"found \['0'\]"),
        ("{title!r}", r"found \['title'\]"),
        ("{title:>9}", r"found \['title'\]"),
        ("{title} {brand.name}", r"found \['brand.name'\]"),
        ("{brand[0]}", r"found \['brand\[0\]'\]"),
    ],
)
def test_what_names_no_column_or_more_than_a_column_is_refused(pattern, found):
    with pytest.raises(ValueError, match=found):
        ProductTemplate(pattern)


def settings(root, toml: str) -> DatasetConfig:
    (root / "warehouse.toml").write_text(toml)
    return from_args(DatasetConfig, argparse.Namespace(config=None, root=str(root), ds=DS))


def test_the_settings_of_the_section_text_reach_the_spec(root):
    found = settings(root, '[text]\nsimplified_chinese = true\nproduct_text = "{title} {brand}"\n').spec()
    assert (found.simplified_chinese, found.product_text) == (True, "{title} {brand}")
    assert found.normaliser == Normaliser(simplified=True).hash


def test_a_bad_template_is_refused_when_the_settings_are_read(root):
    with pytest.raises(InputError, match=r"product_text: .*expected one or more names of catalogue columns"):
        settings(root, '[text]\nproduct_text = "{title.upper}"\n')
