"""Whether a query holds personal data: e-mail address, phone, payment card, bank account or identity number.

Asked of distinct normalised queries. What is written alike everywhere is found by pattern; how phone and identity
numbers are written in a country, phonenumbers and python-stdnum know. It errs towards dropping: of unbroken numbers of
14 to 19 digits one in ten passes for a card by chance, and few products are looked for by such numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

from etl.identity_numbers import holds_identity_number
from etl.phone_numbers import holds_phone_number, is_product_code

Kind = Literal["email", "phone", "card", "identity"]

COUNTRIES = ("BR", "CN", "DE", "ES", "FR", "GB", "IN", "IT", "US")

_AT = r"(?: ?[\[(](?:at|arroba)[\])] ?| ?@ ?| (?:at|arroba) )"
_DOT = r"(?: ?\. ?| ?[\[(]dot[\])] ?| (?:dot|point|punkt|punto) )"
_ENDS = "com|net|org|edu|info|io|co|me|app|au|be|br|ca|ch|cn|de|dk|es|eu|fi|fr|in|it|jp|kr|mx|nl|no|pl|pt|ru|se|tr|uk|us|za"
_PROVIDERS = "gmail|googlemail|hotmail|outlook|yahoo|icloud|aol|gmx|proton|protonmail|yandex|qq|163|126"
_EMAILS = (
    # Signs that stand between two words are hardly ever anything else; nothing is looked for by its "@".
    re.compile(r"[^\s@]@[^\s@]"),
    re.compile(rf"\w ?(?:@|[\[(](?:at|arroba)[\])]) ?[\w-]{{1,63}}{_DOT}\w"),
    # Spelled out; only with the end of a real address or its provider, since things are looked for "at" places.
    re.compile(rf"\w{_AT}(?:[\w-]{{1,63}}{_DOT}(?:{_ENDS})|(?:{_PROVIDERS}))\b"),
)
_SIGNS = {"\u2212": "-", "\u3002": ".", "\uff61": "."}
_CARD_SEPARATOR = r"[ .,()/_:*-]{0,3}"
_NUMBER = re.compile(rf"\d(?:{_CARD_SEPARATOR}\d)+")
_GROUP = re.compile(r"\d+")
_CARD_DIGITS = range(13, 20)
# Of ISO/IEC 7812-1's issuers those of payment cards: Visa, Mastercard, American Express, Diners, and the 5s and 6s.
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3[0689]\d{12}|35\d{14}|6[0245]\d{14,17}|(?:5[06-9]|6[37])\d{11,17}"
)


def personal_data(query: str, countries: Sequence[str] = COUNTRIES) -> Kind | None:
    """The kind of personal data in a normalised query, or None; ``countries``: those whose numbers are looked for."""
    text = query if query.isascii() else _plain(query)
    if "%40" in text:
        text = text.replace("%40", "@")
    if any(pattern.search(text) for pattern in _EMAILS):
        return "email"
    if not any(c.isdigit() for c in text):
        return None
    if _holds_card(text):
        return "card"
    if holds_identity_number(text, countries):
        return "identity"
    return "phone" if holds_phone_number(text, countries) else None


def known_countries() -> frozenset[str]:
    """Codes that :func:`personal_data` takes."""
    from phonenumbers import SUPPORTED_REGIONS

    return frozenset(SUPPORTED_REGIONS)


def luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _plain(query: str) -> str:
    """Digits of all scripts as ASCII, all dashes as "-", as keyboards and word processors put them into numbers."""
    return "".join(map(_plain_character, query))


def _plain_character(c: str) -> str:
    category = unicodedata.category(c)
    if category == "Nd":
        return str(unicodedata.decimal(c))
    return "-" if category == "Pd" else _SIGNS.get(c, c)


def _holds_card(query: str) -> bool:
    # A card may have a number before or behind it ("2 4111 1111 1111 1111"), so every run of whole groups counts.
    for number in _NUMBER.findall(query):
        groups = _GROUP.findall(number)
        if any(len(group) >= _CARD_DIGITS.stop or _is_unbroken_card(group) for group in groups):
            return True
        if any(_CARD.fullmatch(run) and luhn(run) for run in _runs(groups)):
            return True
    return False


def _is_unbroken_card(number: str) -> bool:
    # Whoever issued it: the numbers in one piece that products have are shorter, but for the 13 digits of an EAN.
    return len(number) in _CARD_DIGITS and luhn(number) and not is_product_code(number)


def _runs(groups: Sequence[str]) -> Iterator[str]:
    for i in range(len(groups)):
        run = groups[i]
        for group in groups[i + 1 :]:
            run += group
            if len(run) >= _CARD_DIGITS.stop:
                break
            if len(run) >= _CARD_DIGITS.start:
                yield run
