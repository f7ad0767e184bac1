"""Encoding benchmarks: what is quantised, refused, and reckoned from the seconds."""

import argparse
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.speed.encoding import least_cosine, prepare
from benchmarks.speed.encoding_presets import WARM_UP, Measured, measure
from benchmarks.speed.int8_linear import Int8Linear, quantise, rounded
from benchmarks.speed.training_data import WORDHASH
from etl.errors import InputError
from etl.tokenizer import WordHashTokenizer
from model.encoder import Encoder
from model.fit import draw
from model.inference import embed
from model.packing import tokenised
from model.presets import PRESETS


def test_int8_rounds_each_row_to_parts_of_its_largest_number():
    rows_ND = torch.tensor([[127.0, -63.4, 0.0], [0.0254, 0.0126, -0.0254], [0.0, 0.0, 0.0]])
    small_ND, scale_N1 = rounded(rows_ND)
    assert small_ND.tolist() == [[127, -63, 0], [127, 63, -127], [0, 0, 0]]
    assert torch.allclose(small_ND * scale_N1, rows_ND, atol=0.5)


def test_int8_layer_is_near_the_trained_one_and_no_text_depends_on_another():
    torch.manual_seed(1)
    linear, x_TI = nn.Linear(64, 32), torch.randn(24, 64)
    with torch.inference_mode():
        found_TO, wanted_TO = Int8Linear(linear)(x_TI), linear(x_TI)
        beside_a_large_one = Int8Linear(linear)(torch.cat([x_TI[:20], 1e3 * x_TI[20:]]))
    assert 0 < (found_TO - wanted_TO).norm() / wanted_TO.norm() < 0.02
    assert torch.equal(found_TO[:20], beside_a_large_one[:20])


def test_every_linear_layer_of_an_encoder_is_quantised_and_its_vectors_stay_near():
    encoder = draw(PRESETS["tiny"].encoder, 1)
    nn.init.normal_(encoder.projection.weight, std=0.02)  # from zero: the layers would add nothing
    tokenizer = WordHashTokenizer(replace(WORDHASH, rows=encoder.config.rows))
    rows, table = tokenised(tokenizer, ["red lamp", "a kettle of steel"], "title")
    before_ND = embed(encoder, rows, table)
    before = sum(isinstance(module, nn.Linear) for module in encoder.modules())
    norms = sum(isinstance(module, nn.LayerNorm) for module in encoder.modules())
    quantise(encoder)
    kinds = [type(module) for module in encoder.modules()]
    assert before == kinds.count(Int8Linear) > 0
    assert nn.Linear not in kinds
    assert kinds.count(nn.LayerNorm) == norms
    after_ND = embed(encoder, rows, table)
    assert least_cosine(after_ND, before_ND) > 0.99
    assert not np.array_equal(after_ND, before_ND)


def test_worst_text_decides_the_least_cosine():
    vectors_ND = np.eye(3, dtype=np.float32)
    moved_ND = vectors_ND.copy()
    moved_ND[1] = [0.6, 0.8, 0.0]
    assert least_cosine(moved_ND, vectors_ND) == pytest.approx(0.8)


def test_more_titles_than_home_depot_has_are_refused(tmp_path: Path):
    rows = ["id,product_uid,product_title,search_term,relevance", "1,7,red lamp,lamp,3.0"]
    with gzip.open(tmp_path / "train.csv.gz", "wt", encoding="latin-1") as file:
        file.write("\n".join(rows) + "\n")
    args = argparse.Namespace(data=str(tmp_path), model=None)
    with pytest.raises(InputError, match=r"has 1 titles, 5 are asked for: lower --chunk or --steps"):
        prepare(args, tmp_path, 5)


def test_tokenising_is_a_share_of_the_whole_and_warm_up_is_not_counted():
    preset = Measured(Encoder(PRESETS["bag"].encoder).eval(), WordHashTokenizer(WORDHASH))
    measure([f"red lamp {n}" for n in range(40)], {"bag": preset}, chunk=10)
    assert len(preset.whole) == len(preset.tokenising) == 4 - WARM_UP
    assert 0 < preset.share() < 1
