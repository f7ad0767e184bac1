import numpy as np
import pytest

from etl.errors import InputError
from etl.text import normalise
from etl.tokenizer import BothTokenizer, TokenTable, WordHashTokenizer
from etl.tokenizer_spec import TokenizerSpec
from etl.wordpiece import WordPieceTokenizer
from model.packing import Packer, offsets_of, pack, tokenised

TABLE = TokenTable(ids=np.array([-7, 3, 9]), offsets=np.array([0, 2, 3, 6]), features=np.array([10, 11, 20, 30, 31, 32]))
WORDS = WordHashTokenizer(TokenizerSpec(rows=64, max_query_tokens=2, normaliser=normalise.hash))


def test_each_distinct_token_brings_its_features_once():
    packed = pack(np.array([9, -7, 9]), np.array([0, 1, 3]), TABLE)
    assert packed.features.tolist() == [10, 11, 30, 31, 32]
    assert packed.feature_offsets.tolist() == [0, 2, 5]
    assert packed.tokens.tolist() == [1, 0, 1]
    assert packed.lengths.tolist() == [1, 2]


def test_without_a_table_an_id_is_its_own_feature():
    packed = pack(np.array([5, 2, 5]), np.array([0, 3]), None)
    assert packed.features.tolist() == [2, 5]
    assert packed.tokens.tolist() == [1, 0, 1]


def test_an_id_that_the_table_lacks_is_refused():
    with pytest.raises(InputError, match="1 token ids are not in the token table"):
        pack(np.array([3, 4]), np.array([0, 2]), TABLE)


def packed_texts(tokenizer, texts: list[str], side: str):
    rows, table = tokenised(tokenizer, texts, side)
    return pack(np.concatenate(rows), offsets_of(rows), table)


def test_texts_are_packed_with_the_limit_of_their_side():
    texts = ["Red red KETTLE", "", "kettle"]
    assert packed_texts(WORDS, texts, "query").lengths.tolist() == [2, 0, 1]
    packed = packed_texts(WORDS, texts, "title")
    assert packed.lengths.tolist() == [3, 0, 1]
    assert packed.tokens.tolist() == [0, 0, 1, 1]
    assert packed.features[packed.feature_offsets[1] :].tolist() == WORDS.features("kettle")


def test_pieces_are_packed_without_a_table():
    pieces = WordPieceTokenizer.train(TokenizerSpec(kind="wordpiece", rows=60, normaliser=normalise.hash), ["red kettle"])
    packed = packed_texts(pieces, ["red", "kettle red"], "title")
    assert packed.features[packed.tokens].tolist() == [*pieces.ids("red", "title"), *pieces.ids("kettle red", "title")]


def test_pieces_are_packed_with_the_features_of_their_words():
    spec = TokenizerSpec(kind="both", rows=200, pieces=60, normaliser=normalise.hash)
    both = BothTokenizer.train(spec, ["red kettle"])
    packed = packed_texts(both, ["red", "kettle red"], "title")
    bags = np.split(packed.features.numpy(), packed.feature_offsets.numpy()[1:-1])
    expected = [both.features(token) for text in ("red", "kettle red") for token in both.tokens(text, "title")]
    assert [bags[token].tolist() for token in packed.tokens] == expected


@pytest.mark.parametrize("tokens", [1, 5, 3000])
def test_a_packer_packs_like_pack_batch_after_batch(tokens):
    rng = np.random.default_rng(tokens)
    ids = np.unique(rng.integers(-(2**63), 2**63 - 1, tokens) & ~np.int64(7 * (tokens == 5)))  # five in one slot
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 4, len(ids)))])
    table = TokenTable(ids=ids, offsets=offsets, features=rng.integers(0, 99, offsets[-1]))
    packer, plain = Packer(table), Packer(None, ids=tokens)
    for _ in range(3):
        drawn = rng.integers(0, len(ids), 200)
        for made, expected in (
            (packer.pack(ids[drawn], np.array([0, 50, 200])), pack(ids[drawn], np.array([0, 50, 200]), table)),
            (plain.pack(drawn, np.array([0, 200])), pack(drawn, np.array([0, 200]), None)),
        ):
            for name in ("features", "feature_offsets", "tokens", "offsets"):
                assert getattr(made, name).tolist() == getattr(expected, name).tolist()


def test_a_packer_refuses_ids_that_are_not_in_its_table_whichever_slot_they_fall_into():
    packer = Packer(TokenTable(ids=np.array([3, 40]), offsets=np.array([0, 1, 2]), features=np.array([1, 2])))
    for unknown in (4, 3 + 2**10, 40 - 2**12):
        with pytest.raises(InputError, match=rf"1 token ids are not in the token table \(first: {unknown}\)"):
            packer.pack(np.array([3, unknown]), np.array([0, 2]))
