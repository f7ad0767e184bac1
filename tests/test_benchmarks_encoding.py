import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.encoding import least_cosine, main, shown
from benchmarks.encoding_presets import WARM_UP, Measured, measure
from benchmarks.int8_linear import Int8Linear, quantise, rounded
from etl.tokenizer import WordHashTokenizer
from model.encoder import Encoder
from model.presets import PRESETS
from benchmarks.training_data import WORDHASH


def test_int8_rounds_each_row_to_a_127th_of_its_largest_number():
    rows_ND = torch.tensor([[127.0, -63.4, 0.0], [0.002, 0.001, -0.001]])
    small_ND, scale_N1 = rounded(rows_ND)
    assert small_ND.tolist() == [[127, -63, 0], [127, 64, -64]]
    assert torch.allclose(small_ND * scale_N1, rows_ND, atol=0.5 * scale_N1.max().item())
