from __future__ import annotations

import pytest

from etl.pairs_config import PairsConfig
from etl.privacy import luhn, personal_data
from etl.text import normalise
from tests.rows import DS


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("joe.doe@example.com", "email"),
        ("order of joe@mail.example.co.uk please", "email"),
        ("ＪＯＥ＠ＥＸＡＭＰＬＥ．ＣＯＭ", "email"),
        ("joe\u200b@example.com", "email"),
        ("joe (at) example.com", "email"),
        ("john at gmail.com", "email"),
        ("john.doe at gmail dot com", "email"),
        ("13912345678", "phone"),
        ("快递 139-1234-5678", "phone"),
        ("+86 139 1234 5678", "phone"),
        ("010-12345678", "phone"),
        ("call 07911 123456", "phone"),
        ("06 12 34 56 78", "phone"),
        ("020 7946 0958 plumber", "phone"),
        ("0171/1234567", "phone"),
        ("(0171) 1234567", "phone"),
        ("0755-2612-3456", "phone"),
        ("call (555) 123-4567", "phone"),
        ("555.123.4567", "phone"),
        ("+44 20 7946 0958", "phone"),
        ("+1 (555) 123-4567", "phone"),
        ("4111111111111111", "card"),
        ("4111 1111 1111 1111", "card"),
        ("4111-1111-1111-1111 visa", "card"),
        ("2 4111 1111 1111 1111 7", "card"),
        ("3782 822463 10005", "card"),
        ("12345678901234567890123", "card"),
        ("call 98765 43210", "phone"),
        ("612345678", "phone"),
        ("612 34 56 78", "phone"),
        ("(11) 96123-4567", "phone"),
        ("cpf 123.456.789-09", "identity"),
        ("aadhaar 2341 2341 2346", "identity"),
        ("12345678z", "identity"),
        ("RSSMRA85T10A562S", "identity"),
        ("nhs 943 476 5919", "phone"),
        ("gb82 west 1234 5698 7654 32", "identity"),
        ("11010519491231002x", "identity"),
        ("110105 19491231 002X", "identity"),
        ("078-05-1120", "identity"),
    ],
)
def test_personal_data_is_found(query, kind):
    assert personal_data(normalise(query)) == kind


@pytest.mark.parametrize(
    "query",
    [
        "sneakers",
        "iphone 15 pro max 256gb",
        "tv 55 inch 3840 x 2160",
        "bolt m8 1.25 10.9 100-240",
        "usb c 3.2 20 gbps 2 m",
        "lego 75192",
        "4006381333931",
        "036000291452",
        "4111 1111 1111 1112",
        "2024-05-07",
        "01.05.2024",
        "calendar 01-05-2024",
        "0.25 x 100 mm",
        "10 0.5 2000 10",
        "look at this dot pattern",
        "gloves size 09 10 11",
        "1/2 in. x 3/4 in. 10-pack 50 ft.",
        "levi's 501 32/34",
        "@home",
        "90*200cm 床垫",
        "hdmi 3840 2160 120 hz",
        "15 12 128 256 gb",
        "dewalt dcd771c2 20v",
        "part 12345678",
    ],
)
def test_a_query_for_a_product_is_let_through(query):
    assert personal_data(normalise(query)) is None


def test_luhn_accepts_known_cards_and_refuses_each_with_one_digit_changed():
    cards = ["4111111111111111", "5500005555555559", "378282246310005", "6011000990139424"]
    assert all(map(luhn, cards))
    for card in cards:
        assert not any(luhn(card[:i] + str((int(card[i]) + 1) % 10) + card[i + 1 :]) for i in range(len(card)))


def test_numbers_of_a_country_are_found_only_if_it_is_named():
    for number, country in [("98765 43210", "IN"), ("612 34 56 78", "ES"), ("cpf 123.456.789-09", "BR")]:
        assert personal_data(number, [country])
        assert personal_data(number, []) is None


def test_an_unknown_country_is_refused():
    with pytest.raises(ValueError, match=r"countries holds UK, xx \(expected codes of two capitals, like BR or IN\)"):
        PairsConfig(root="", ds=DS, countries=("GB", "UK", "xx"))
