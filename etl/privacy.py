"""Whether a query holds personal data: e-mail address, phone, payment card or identity number.

Asked of distinct normalised queries (so full width digits are plain ones already). It errs towards dropping:
one long number in ten passes for a card by chance, and few products are looked for by such numbers.
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["email", "phone", "card", "identity"]

_EMAILS = (
    re.compile(r"[\w.+-]+ ?(?:@|\(at\)|\[at\]) ?[\w-]+(?: ?\. ?[\w-]+)+"),
    # Spelled out; only with the end of a real address, since things are looked for "at" places.
    re.compile(r"[\w.+-]+ at [\w-]+(?: ?\. ?| dot )(?:com|net|org|edu|info|io|co|cn|de|es|eu|fr|in|it|jp|nl|pl|ru|uk|us)\b"),
)
_SEPARATOR = r"[ .()/-]{0,2}"
_NUMBER = re.compile(rf"\+?\d(?:{_SEPARATOR}\d)+")
_GROUP = re.compile(r"\d+")
_PHONES = (
    re.compile(rf"\+{_SEPARATOR}\d(?:{_SEPARATOR}\d){{7,14}}(?!\d)"),  # with its country
    re.compile(r"(?<!\d)(?:(?:00)?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?!\d)"),  # Chinese mobile
    re.compile(r"(?<!\d)(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\d)"),  # North American
    re.compile(r"(?<!\d)\d{10,11}(?!\d)"),  # unbroken; a UPC has 12 digits, an EAN 8 or 13
)
_IDENTITIES = (
    re.compile(r"(?<!\d)\d{17}[\dx](?![\da-z])"),  # Chinese resident identity card
    re.compile(r"(?<!\d)\d{6} ?(?:19|20)\d{2}[01]\d[0-3]\d ?\d{3}[\dx](?![\da-z])"),  # the same in groups
    re.compile(r"(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)"),  # US social security
)
_TRUNK = re.compile(r"(?<![\d.,])\(?0\d{1,4}\)?(?:[ ./-]{1,2}\d{2,8}){1,4}(?![\d])")
"""From the trunk prefix on, in groups: 07911 123456, 06 12 34 56 78, 010-12345678, 0171/1234567."""
_TRUNK_DIGITS = range(9, 13)  # a date has 8
_CARD_DIGITS = range(13, 20)


def personal_data(query: str) -> Kind | None:
    """The kind of personal data in a normalised query, or None."""
    if any(pattern.search(query) for pattern in _EMAILS):
        return "email"
    if not any(c.isdigit() for c in query):
        return None
    if any(pattern.search(query) for pattern in _IDENTITIES):
        return "identity"
    if any(pattern.search(query) for pattern in _PHONES) or any(map(_holds_trunk_call, _TRUNK.findall(query))):
        return "phone"
    return "card" if any(_holds_card(number) for number in _NUMBER.findall(query)) else None


def luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _holds_trunk_call(number: str) -> bool:
    return sum(map(str.isdigit, number)) in _TRUNK_DIGITS


def _holds_card(number: str) -> bool:
    # A card may have a number before or behind it ("2 4111 1111 1111 1111"), so every run of whole groups counts.
    groups = _GROUP.findall(number)
    if any(len(group) >= _CARD_DIGITS.stop for group in groups):
        return True
    runs = ("".join(groups[i:j]) for i in range(len(groups)) for j in range(i + 1, len(groups) + 1))
    return any(len(run) in _CARD_DIGITS and luhn(run) for run in runs)
