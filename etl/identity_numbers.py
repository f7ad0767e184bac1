"""Identity numbers of persons, by country: how each is written, and the module of python-stdnum that checks it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

_NUMBERS_OF = {
    "AR": [(r"\d{2}-?\d{8}-?\d", "ar.cuit")],
    "AU": [(r"\d{3} ?\d{3} ?\d{3}", "au.tfn")],
    "BE": [(r"\d{2}\.?\d{2}\.?\d{2}[ -]?\d{3}[ .]?\d{2}", "be.nn")],
    "BR": [(r"\d{3}[ .]?\d{3}[ .]?\d{3}[ .-]?\d{2}", "br.cpf")],
    "CA": [(r"\d{3}[ -]?\d{3}[ -]?\d{3}", "ca.sin")],
    "CH": [(r"756[ .]?\d{4}[ .]?\d{4}[ .]?\d{2}", "ch.ssn")],
    "CL": [(r"\d{1,2}\.?\d{3}\.?\d{3}-?[\dk]", "cl.rut")],
    "CN": [(r"\d{6} ?(?:19|20)\d{6} ?\d{3}[\dx]", "cn.ric")],
    "CO": [(r"\d{1,3}\.?\d{3}\.?\d{3}-\d", "co.nit")],
    "CZ": [(r"\d{6}/?\d{3,4}", "cz.rc")],
    "DE": [(r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr")],
    "DK": [(r"\d{6}[ -]?\d{4}", "dk.cpr")],
    "ES": [(r"\d{2}\.?\d{3}\.?\d{3}[ -]?[a-z]", "es.dni"), (r"[xyz][ -]?\d{7}[ -]?[a-z]", "es.nie")],
    "FI": [(r"\d{6}[-+a-fu-y]\d{3}[\da-y]", "fi.hetu")],
    "FR": [(r"[12] ?\d{2} ?\d{2} ?\d[\dab] ?\d{3} ?\d{3} ?\d{2}", "fr.nir")],
    "GB": [
        (r"\d{3}[ -]?\d{3}[ -]?\d{4}", "gb.nhs"),
        (r"(?!bg|gb|kn|nk|nt|tn|zz)[abceghj-prstw-z][abceghj-nprstw-z] ?\d{2} ?\d{2} ?\d{2} ?[a-d]", ""),
    ],
    "GR": [(r"\d{11}", "gr.amka")],
    "ID": [(r"\d{16}", "id.nik")],
    "IN": [(r"\d{4}[ -]?\d{4}[ -]?\d{4}", "in_.aadhaar"), (r"[a-z]{3}p[a-z]\d{4}[a-z]", "in_.pan")],
    "IT": [(r"[a-z]{3} ?[a-z]{3} ?\d{2}[a-z]\d{2} ?[a-z]\d{3}[a-z]", "it.codicefiscale")],
    "KR": [(r"\d{6}-?\d{7}", "kr.rrn")],
    "MX": [(r"[a-z]{4}\d{6}[hm][a-z]{5}[a-z\d]\d", "mx.curp")],
    "MY": [(r"\d{6}-?\d{2}-?\d{4}", "my.nric")],
    "NL": [(r"\d{9}|\d{4}[ .]\d{2}[ .]\d{3}", "nl.bsn")],
    "NO": [(r"\d{6} ?\d{5}", "no.fodselsnummer")],
    "PL": [(r"\d{11}", "pl.pesel")],
    "PT": [(r"\d{8} ?\d ?[a-z]{2}\d", "pt.cc")],
    "RO": [(r"\d{13}", "ro.cnp")],
    "SE": [(r"(?:\d{2})?\d{6}[-+]?\d{4}", "se.personnummer")],
    "TH": [(r"\d-?\d{4}-?\d{5}-?\d{2}-?\d", "th.pin")],
    "TR": [(r"\d{11}", "tr.tckimlik")],
    "US": [(r"\d{3}[ .-]\d{2}[ .-]\d{4}", "us.ssn")],
    "ZA": [(r"\d{6} ?\d{4} ?\d{3}", "za.idnr")],
}
"""Patterns of normalised text, with the separators that are customary: sizes and years in a row fit few of them."""

# Wherever one shops: what a card with a chip in the largest of countries says, and what a form in English asks for.
_ANYWHERE = [
    re.compile(r"(?<!\d)\d{6} ?(?:19|20)\d{2}[01]\d[0-3]\d ?\d{3}[\dx](?![\da-z])"),
    re.compile(r"(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)"),
]
_IBAN = re.compile(r"(?<![a-z\d])(?=([a-z]{2}\d{2}(?:[ .-]?[a-z\d]){11,40}))")
_IBAN_GROUP = re.compile(r"[a-z\d]+")


def holds_identity_number(query: str, countries: Sequence[str]) -> bool:
    """Whether a normalised query with plain digits holds an identity number of one of the countries, or an IBAN."""
    if any(pattern.search(query) for pattern in _ANYWHERE) or _holds_iban(query):
        return True
    for pattern, check in _checked(tuple(countries)):
        for found in pattern.findall(query):
            if check is None or check.is_valid(re.sub("[ ./]", "", found)):
                return True
    return False


@cache
def _checked(countries: tuple[str, ...]) -> list[tuple[re.Pattern[str], ModuleType | None]]:
    # The lookahead finds numbers that overlap: "2 401 023 2137" holds one from its second group on.
    return [
        (re.compile(rf"(?<![\da-z])(?=({written})(?![\da-z]))"), import_module(f"stdnum.{name}") if name else None)
        for country in countries
        for written, name in _NUMBERS_OF.get(country, ())
    ]


def _holds_iban(query: str) -> bool:
    from stdnum import iban

    for found in _IBAN.findall(query):
        number = ""
        for group in _IBAN_GROUP.findall(found):
            number += group
            # Without the account's own check digits, which a bank's example may lack.
            if iban.is_valid(number, check_country=False):
                return True
    return False
