"""The text normaliser within tokenizer.json against the one in Python."""

from __future__ import annotations

import sys
import unicodedata

import numpy as np
import pytest
from tokenizers import Tokenizer

from etl.errors import InputError
from etl.text import Normaliser, normalise
from etl.text_rules import text_rules
from etl.tokenizer import load_tokenizer
from etl.tokenizer_spec import TokenizerSpec
from etl.wordpiece import WordPieceTokenizer

RULES = text_rules(normalise)

ASSIGNED = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cn", "Cs")]

YOUNG = {
    c
    for c in ASSIGNED
    if unicodedata.combining(c) and RULES.normalize_str(f"q\u0301{c}\u0316") != normalise(f"q\u0301{c}\u0316")
}


def chunks(texts: list[str], size: int = 400) -> list[str]:
    return [" ".join(texts[i : i + size]) for i in range(0, len(texts), size)]


@pytest.mark.parametrize("form", ["{0}", "a{0}b", "é{0}\u0301{0}"])
def test_every_assigned_character_is_normalised_as_in_python(form):
    for text in chunks([form.format(c) for c in ASSIGNED if c not in YOUNG]):
        assert RULES.normalize_str(text) == normalise(text)


def test_rows_of_odd_characters_are_normalised_as_in_python():
    rng = np.random.default_rng(1)
    odd = [c for c in ASSIGNED if ord(c) < 0x3000 and c not in YOUNG] + list("ßẞ\u0130\u0345\u0307iſΣς^`\u200d\xad ") * 20
    rows = ["".join(odd[i] for i in row) for row in rng.integers(len(odd), size=(20_000, 9))]
    assert [row for row in chunks(rows, 20) if RULES.normalize_str(row) != normalise(row)] == []


def test_the_marks_that_the_library_does_not_sort_are_few_and_right_where_they_stand_alone():
    assert 0 < len(YOUNG) < 150
    assert all(RULES.normalize_str(f"a{c}b") == normalise(f"a{c}b") for c in YOUNG)


def test_the_file_alone_gives_the_ids_of_our_tokenizer(tmp_path):
    spec = TokenizerSpec(kind="wordpiece", rows=500, max_title_tokens=100_000, normaliser=normalise.hash)
    tokenizer = WordPieceTokenizer.train(spec, ["Größe red kettle 红色连衣裙 ｶﾞ", "운동화 हिन्दी café 5.5mm"])
    tokenizer.save(tmp_path)
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    for text in [*chunks([f"Gr{c}ße{c}" for c in ASSIGNED], 200), "", "\x00", "\ufffd红", "Ｒed^ `kettle"]:
        assert alone.encode(text).ids == ours.ids(text, "title").tolist()


def test_a_special_token_in_a_title_is_text_to_our_tokenizer(tmp_path):
    spec = TokenizerSpec(kind="wordpiece", rows=60, normaliser=normalise.hash)
    tokenizer = WordPieceTokenizer.train(spec, ["[sep] [SEP] kettle"])
    assert tokenizer.tokens("[SEP] kettle", "title")[1] == "["
    assert tokenizer.tokens("[SEP] kettle", "title").count("[SEP]") == 1


def test_ascii_signs_stay_whatever_stands_beside_them():
    assert normalise("5^2 `x`") == "5^2 `x`"
    assert normalise("é 5^2 `x`\t") == "é 5^2 `x`"


def test_simplified_chinese_cannot_be_written_as_rules_and_is_left_out_of_the_file(tmp_path):
    with pytest.raises(InputError, match="Traditional to Simplified"):
        text_rules(Normaliser(simplified=True))
    spec = TokenizerSpec(kind="wordpiece", rows=60, simplified_chinese=True, normaliser=Normaliser(simplified=True).hash)
    WordPieceTokenizer.train(spec, ["运动鞋"]).save(tmp_path)
    assert load_tokenizer(tmp_path).tokens("運動鞋", "title") == load_tokenizer(tmp_path).tokens("运动鞋", "title")
