from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys

import pytest

from etl.errors import InputError
from etl.text import Normaliser, normalise, word_spans, words
from etl.tokenizer import BothTokenizer, WordHashTokenizer, load_tokenizer
from etl.tokenizer_spec import SPEC_FILE, TokenizerSpec, read_spec
from etl.wordpiece import WordPieceTokenizer

SIMPLIFIED = Normaliser(simplified=True)


def spec(**changes) -> TokenizerSpec:
    simplified = changes.get("simplified_chinese", False)
    return TokenizerSpec(**{"rows": 64, "normaliser": Normaliser(simplified=simplified).hash} | changes)


def test_traditional_and_simplified_words_are_one_text_only_if_the_option_is_on():
    assert SIMPLIFIED("運動鞋 39") == SIMPLIFIED("运动鞋 39") == "运动鞋 39"
    assert normalise("運動鞋") != normalise("运动鞋")


@pytest.mark.parametrize("text", ["牛肉乾", "乾隆", "ＮＩＫＥ　後跟\u200b 頭髮👟", "一目瞭然的薴"])
def test_a_part_of_a_text_is_simplified_as_in_the_whole(text):
    assert SIMPLIFIED(" ".join(text)) == SIMPLIFIED(" ".join(SIMPLIFIED(text)))


@pytest.mark.parametrize("normaliser", [normalise, SIMPLIFIED])
def test_a_normalised_text_stays_as_it_is_whatever_its_characters(normaliser):
    every = [chr(point) for point in range(0x20, 0x32400) if not 0xD800 <= point < 0xE000]
    once = list(map(normaliser, every))
    assert [(a, b) for a, b in zip(once, map(normaliser, once), strict=True) if a != b] == []


def test_vowel_signs_and_points_stay_in_their_word():
    assert words(normalise("हिन्दी जूते ที่นอน بِسْمِ cafe\u0301")) == ["हिन्दी", "जूते", "ที่นอน", "بِسْمِ", "café"]


def test_a_text_in_ascii_has_the_words_that_it_has_beside_other_scripts():
    for texts in itertools.product(map(chr, range(128)), "a7.,", "b8 _"):
        text = "".join(texts)
        assert words(text) == words(f"{text} 鞋")[:-1]
        assert word_spans(text) == word_spans(f"{text} 鞋")[:-1]


def test_characters_that_nobody_sees_part_no_word():
    assert normalise("shoe\u00adlace") == normalise("\ufeffshoe\u200dlace") == "shoelace"
    assert normalise("❤\ufe0f 1\ufe0f\u20e3 cafe\ufe0f\u0301") == "1 café"
    assert normalise("shoe\u200blace") == "shoe lace"


def test_what_the_option_does_not_name_stays_as_without_it():
    for text in ("Ａｉｒ\u3000Zoom３９ 👟🏽 5.5mm", "红色连衣裙\x00", "café’s"):
        assert SIMPLIFIED(text) == normalise(text)


def test_the_hash_depends_on_the_option_and_travels_with_the_normaliser():
    assert normalise.hash != SIMPLIFIED.hash
    assert pickle.loads(pickle.dumps(SIMPLIFIED)).hash == SIMPLIFIED.hash


def test_the_library_of_characters_is_loaded_by_the_first_text_that_needs_it():
    code = (
        "import sys; from etl.text import Normaliser, normalise; normalise('運'); Normaliser(simplified=True)('kettle');"
        "assert 'opencc' not in sys.modules; Normaliser(simplified=True)('運'); assert 'opencc' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["wordhash", "wordpiece", "both"])
def test_a_tokenizer_comes_back_with_its_text_settings_and_tokenises_by_them(tmp_path, kind):
    made = spec(kind=kind, pieces=60 * (kind == "both"), simplified_chinese=True, product_text="{title} {brand}")
    trained = {"wordpiece": WordPieceTokenizer, "both": BothTokenizer}
    tokenizer = trained[kind].train(made, ["運動鞋", "kettle"]) if kind in trained else WordHashTokenizer(made)
    tokenizer.save(tmp_path)
    found = load_tokenizer(tmp_path)
    assert found.spec == made
    assert found.tokens("運動鞋", "query") == found.tokens("运动鞋", "query")
    assert "[UNK]" not in found.tokens("運動鞋", "query")


def write_old_spec(directory, **changes) -> None:
    """As it was written before there were options."""
    WordHashTokenizer(spec()).save(directory)
    content = json.loads((directory / SPEC_FILE).read_text())
    left = {key: value for key, value in content.items() if key not in ("simplified_chinese", "product_text")}
    (directory / SPEC_FILE).write_text(json.dumps(left | changes))


def test_a_spec_from_before_the_options_has_their_defaults(tmp_path):
    write_old_spec(tmp_path)
    assert load_tokenizer(tmp_path).spec == spec()


def test_a_spec_of_another_normaliser_is_refused_with_the_cure(tmp_path):
    write_old_spec(tmp_path, normaliser=SIMPLIFIED.hash)
    found = f"normaliser {SIMPLIFIED.hash}, installed is {normalise.hash}, Unicode .*: install"
    with pytest.raises(InputError, match=found):
        load_tokenizer(tmp_path)
    assert read_spec(tmp_path).normaliser == SIMPLIFIED.hash


def test_a_spec_with_fields_of_a_newer_version_is_refused(tmp_path):
    write_old_spec(tmp_path, stress=1)
    with pytest.raises(InputError, match=r"unknown fields \['stress'\]: a newer version of this package made it"):
        read_spec(tmp_path)


def test_a_directory_without_a_spec_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no tokenizer \(expected tokenizer_spec.json\)"):
        load_tokenizer(tmp_path)
