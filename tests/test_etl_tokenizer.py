"""WordPiece's sequence with the hashed n-grams of the words."""

import pytest

from etl.errors import InputError
from etl.text import normalise
from etl.tokenize_texts import Tokenise
from etl.tokenizer import BothTokenizer, WordHashTokenizer, load_tokenizer, token_id
from etl.tokenizer_spec import TokenizerSpec
from etl.wordpiece import WordPieceTokenizer

PIECES, ROWS = 60, 1_060
SPEC = TokenizerSpec(kind="both", rows=ROWS, pieces=PIECES, max_query_tokens=4, normaliser=normalise.hash)
WORDS = WordHashTokenizer(TokenizerSpec(rows=ROWS - PIECES, normaliser=normalise.hash))
TEXTS = ["red kettle 5.5mm 红色连衣裙", "blue lamp-shade kettles 운동화"]


@pytest.fixture(scope="module")
def both() -> BothTokenizer:
    return BothTokenizer.train(SPEC, TEXTS)


def row_of(both: BothTokenizer, piece: str) -> int:
    return both.tokenizer.get_vocab()[piece]


def grams(*words: str) -> list[int]:
    """Rows of the n-grams of words, behind those of the vocabulary."""
    return list(dict.fromkeys(PIECES + row for word in words for row in WORDS.features(word)))


def test_a_piece_has_its_row_and_the_n_grams_of_its_word_in_chinese_with_bigram_and_trigram(both):
    tokens = both.tokens("Red 连衣裙, kettle", "title")
    assert tokens == ["[CLS]", "red red", "连 连衣裙", "衣 衣裙", "裙 裙", "[UNK]", "kettle kettle", "[SEP]"]
    assert both.features("[CLS]") == [row_of(both, "[CLS]")]
    assert both.features("kettle kettle") == [row_of(both, "kettle"), *grams("kettle")]
    assert both.features("连 连衣裙") == [row_of(both, "连"), *grams("连衣裙")]
    assert len(both.features("连 连衣裙")) == 4


def test_pieces_of_one_word_are_told_apart_by_their_own_row_alone(both):
    tokens = both.tokens("shade", "title")[1:-1]
    assert len(tokens) > 1
    assert "".join(token.split(" ")[0].removeprefix("##") for token in tokens) == "shade"
    assert [both.features(token)[1:] for token in tokens] == [grams("shade")] * len(tokens)
    assert len({both.features(token)[0] for token in tokens}) == len({*map(token_id, tokens)}) == len(tokens)


def test_a_piece_has_the_n_grams_of_every_word_that_it_touches(both):
    tokens = both.tokens("5.5mm 운동화 lamp-shade", "title")
    assert tokens[1:4] == ["5 5.5", ". 5.5", "5mm 5.5 mm"]
    assert "- " not in tokens
    assert "-" in tokens
    assert both.features("5mm 5.5 mm")[1:] == grams("5.5", "mm")
    hangul = [token for token in tokens if "화" in token]
    assert [both.features(token)[1:] for token in hangul] == [grams("운동화", "동화", "화")]


def test_the_same_texts_make_the_same_vocabulary(both):
    again = [BothTokenizer.train(SPEC, TEXTS).tokenizer.to_str() for _ in range(5)]
    assert set(again) == {both.tokenizer.to_str()}


def test_a_misspelt_word_keeps_most_n_grams_and_an_unknown_one_is_not_just_unknown(both):
    right, wrong = (set(both.features(both.tokens(text, "query")[1])[1:]) for text in ("espressomaker", "espresomaker"))
    assert len(right & wrong) > len(right) / 2
    unknown = both.tokens("żółw", "query")
    assert unknown == ["[CLS]", "[UNK] żółw", "[SEP]"]
    assert both.features(unknown[1]) == [row_of(both, "[UNK]"), *grams("żółw")]


def test_a_long_text_is_cut_before_its_last_token(both):
    assert both.tokens("red kettle red kettle", "query") == ["[CLS]", "red red", "kettle kettle", "[SEP]"]


def test_spark_s_workers_give_the_ids_of_the_tokenizer_itself(both, tmp_path):
    both.save(tmp_path)
    tokenise = Tokenise.of(tmp_path)
    for text in (*TEXTS, "", "unseen 鞋"):
        expected = b"".join(int(i).to_bytes(8, "little", signed=True) for i in both.ids(text, "title"))
        assert tokenise.encode(text, "title") == expected


def test_a_vocabulary_that_does_not_fit_into_its_rows_is_refused(both):
    with pytest.raises(InputError, match=rf"vocabulary of {PIECES} pieces in 59 of {ROWS} rows .*lower pieces"):
        BothTokenizer(TokenizerSpec(kind="both", rows=ROWS, pieces=59), both.tokenizer)
    with pytest.raises(InputError, match=r"60 pieces in 60 of 60 rows .*raise rows"):
        BothTokenizer(TokenizerSpec(kind="both", rows=60, pieces=60), both.tokenizer)


@pytest.mark.parametrize("kind", ["wordpiece", "both"])
@pytest.mark.parametrize("name", ["tokenizer_spec.json", "tokenizer.json"])
def test_a_file_of_a_tokenizer_that_was_cut_is_refused_by_its_name(both, tmp_path, kind, name):
    spec = TokenizerSpec(kind="wordpiece", rows=PIECES, normaliser=normalise.hash)
    (both if kind == "both" else WordPieceTokenizer(spec, both.tokenizer)).save(tmp_path)
    assert load_tokenizer(tmp_path).spec.kind == kind
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-10])
    with pytest.raises(InputError, match=rf"/{name} cannot be read as JSON, it is cut or damaged \(.*\): copy .* again"):
        load_tokenizer(tmp_path)
