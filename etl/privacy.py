"""Whether a query holds personal data: e-mail address, phone, payment card, bank account or identity number.

Asked of distinct normalised queries (so full width digits are plain ones already). What is written alike everywhere is
found by pattern; how phone and identity numbers are written in a country, phonenumbers and python-stdnum know. It errs
towards dropping: one long number in ten passes for a card by chance, and few products are looked for by such numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Literal

Kind = Literal["email", "phone", "card", "identity"]

COUNTRIES = ("BR", "CN", "DE", "ES", "FR", "GB", "IN", "IT", "US")

_NUMBERS_OF = {
    "AR": ("ar.dni", "ar.cuit"), "AU": ("au.tfn",), "BE": ("be.nn",), "BR": ("br.cpf",), "CA": ("ca.sin",),
    "CH": ("ch.ssn",), "CL": ("cl.rut",), "CN": ("cn.ric",), "CO": ("co.nit",), "CZ": ("cz.rc",), "DE": ("de.idnr",),
    "DK": ("dk.cpr",), "ES": ("es.dni", "es.nie"), "FI": ("fi.hetu",), "FR": ("fr.nir",), "GB": ("gb.nhs",),
    "GR": ("gr.amka",), "ID": ("id.nik",), "IN": ("in_.aadhaar",), "IT": ("it.codicefiscale",), "KR": ("kr.rrn",),
    "MX": ("mx.curp",), "MY": ("my.nric",), "NL": ("nl.bsn",), "NO": ("no.fodselsnummer",), "PL": ("pl.pesel",),
    "PT": ("pt.cc",), "RO": ("ro.cnp",), "SE": ("se.personnummer",), "TH": ("th.pin",), "TR": ("tr.tckimlik",),
    "ZA": ("za.idnr",),
}  # fmt: skip
"""Modules of python-stdnum for the numbers that persons have, where a check digit or a date tells them from others."""

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
_FEWEST_DIGITS = 7  # of a phone or identity number (7: Italy's fiscal code)
_PRODUCT_CODE_DIGITS = (8, 12, 13)  # EAN-8, UPC, EAN-13
_PARTS = re.compile(r"[a-z\d]+(?:[ ./-][a-z\d]+)*")
_PART = re.compile(r"[a-z\d]+")
_LONGEST_NUMBER = 34  # an IBAN


def personal_data(query: str, countries: Sequence[str] = COUNTRIES) -> Kind | None:
    """The kind of personal data in a normalised query, or None; ``countries``: those whose numbers are looked for."""
    if any(pattern.search(query) for pattern in _EMAILS):
        return "email"
    if not any(c.isdigit() for c in query):
        return None
    if any(pattern.search(query) for pattern in _IDENTITIES):
        return "identity"
    if any(pattern.search(query) for pattern in _PHONES) or any(map(_holds_trunk_call, _TRUNK.findall(query))):
        return "phone"
    if any(_holds_card(number) for number in _NUMBER.findall(query)):
        return "card"
    if sum(map(str.isdigit, query)) < _FEWEST_DIGITS:
        return None
    if any(_holds_phone(query, country) for country in countries):
        return "phone"
    return "identity" if any(_is_identity(number, tuple(countries)) for number in _numbers(query)) else None


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


def _holds_trunk_call(number: str) -> bool:
    return sum(map(str.isdigit, number)) in _TRUNK_DIGITS


def _holds_card(number: str) -> bool:
    # A card may have a number before or behind it ("2 4111 1111 1111 1111"), so every run of whole groups counts.
    groups = _GROUP.findall(number)
    if any(len(group) >= _CARD_DIGITS.stop for group in groups):
        return True
    runs = ("".join(groups[i:j]) for i in range(len(groups)) for j in range(i + 1, len(groups) + 1))
    return any(len(run) in _CARD_DIGITS and luhn(run) for run in runs)


def _numbers(query: str) -> Iterator[str]:
    """Neighbouring parts of a query put together, where they could be a number of a person: "12 345 678" -> "12345678"."""
    for found in _PARTS.findall(query):
        parts = _PART.findall(found)
        for i in range(len(parts)):
            number = ""
            for part in parts[i:]:
                number += part
                if len(number) > _LONGEST_NUMBER:
                    break
                if sum(map(str.isdigit, number)) >= _FEWEST_DIGITS:
                    yield number


def _is_identity(number: str, countries: tuple[str, ...]) -> bool:
    return any(kind.is_valid(number) for kind in _kinds(countries))


@cache
def _kinds(countries: tuple[str, ...]) -> tuple[ModuleType, ...]:
    names = ["iban", *(name for country in countries for name in _NUMBERS_OF.get(country, ()))]
    return tuple(import_module(f"stdnum.{name}") for name in names)


def _holds_phone(query: str, country: str) -> bool:
    """Whether a number stands there that is assigned in that country, in the groups in which it is written there."""
    from phonenumbers import Leniency, PhoneNumberMatcher  # 0.2 s, and only numbers need it

    found = PhoneNumberMatcher(query, country, leniency=Leniency.STRICT_GROUPING)
    return any(not _is_product_code(match.raw_string) for match in found)


def _is_product_code(number: str) -> bool:
    from stdnum import ean

    return number.isdigit() and len(number) in _PRODUCT_CODE_DIGITS and bool(ean.is_valid(number))
