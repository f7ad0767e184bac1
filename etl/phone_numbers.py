"""Phone numbers in queries: those that look alike everywhere by pattern, those of a country by phonenumbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_SEPARATOR = r"[ .()/-]{0,2}"
# A part number is often a letter and ten digits ("a2711800309"); behind a word there may be a phone ("tel13912345678").
_ALONE = r"(?<!\d)(?<!\b[a-z])"
_PHONES = (
    re.compile(rf"\+{_SEPARATOR}\d(?:{_SEPARATOR}\d){{7,14}}(?!\d)"),  # with its country
    re.compile(rf"{_ALONE}(?:(?:00)?86[ -]?)?1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}(?!\d)"),  # Chinese mobile
    # North American: neither part begins with 0 or 1, and no further number stands beside it, as in "220 330 470 1000".
    re.compile(r"(?<!\d)(?<!\d[ ./-])(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[1-9]\d{2}[ .-]\d{4}(?![ ./-]?\d)"),
    re.compile(rf"{_ALONE}\d{{10,11}}(?!\d)"),  # unbroken; a UPC has 12 digits, an EAN 8 or 13
)
_TRUNK = re.compile(r"(?<![\d.,])(?<!\d[ ./-])\(?0\d{1,4}\)?(?:[ ./-]{1,2}\d{2,8}){1,4}(?!\d)")
"""From the trunk prefix on, in groups: 07911 123456, 06 12 34 56 78, 010-12345678, 0171/1234567."""
_TRUNK_DIGITS = range(9, 13)  # a date has 8
_GROUP = re.compile(r"\d+")
_PRODUCT_CODE_DIGITS = (8, 12, 13)  # EAN-8, UPC, EAN-13
_FEWEST_DIGITS = 7
_SERIES_STEP = 10


def holds_phone_number(query: str, countries: Sequence[str]) -> bool:
    """Whether a normalised query with plain digits holds a phone number; ``countries``: as written at home in those."""
    if any(pattern.search(query) for pattern in _PHONES) or any(map(_is_trunk_call, _TRUNK.findall(query))):
        return True
    return sum(map(str.isdigit, query)) >= _FEWEST_DIGITS and any(_is_written_in(query, country) for country in countries)


def is_product_code(number: str) -> bool:
    """Whether it is an EAN-8, UPC or EAN-13, unbroken, by its check digit."""
    from stdnum import ean

    return number.isdigit() and len(number) in _PRODUCT_CODE_DIGITS and bool(ean.is_valid(number))


def _is_trunk_call(number: str) -> bool:
    groups = _GROUP.findall(number)
    # In "0402 0603 0805", sizes of resistors, each has the zero.
    zeros = all(group[0] == "0" and len(group) > 2 for group in groups)
    return len("".join(groups)) in _TRUNK_DIGITS and not zeros and not _is_series(groups)


def _is_written_in(query: str, country: str) -> bool:
    """Whether a number stands there that is assigned in that country, in the groups in which it is written there."""
    from phonenumbers import Leniency, PhoneNumberMatcher  # 0.2 s, and only numbers need it

    found = (match.raw_string for match in PhoneNumberMatcher(query, country, leniency=Leniency.STRICT_GROUPING))
    return any(not (is_product_code(number) or _is_series(_GROUP.findall(number)) or _is_range(number)) for number in found)


def _is_series(groups: Sequence[str]) -> bool:
    """Sizes and years in a row: "38 39 40 41 42"."""
    steps = {int(b) - int(a) for a, b in pairwise(groups)}
    return len(groups) > 2 and len(steps) == 1 and 0 < steps.pop() <= _SERIES_STEP


def _is_range(number: str) -> bool:
    """Prices from and to: "70000-80000"."""
    groups = _GROUP.findall(number)
    return len(groups) == 2 and all(group.endswith("00") for group in groups)
