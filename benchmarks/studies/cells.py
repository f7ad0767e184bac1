"""The cells of the studies: what each training of `benchmarks.studies` differs in from the first one of its study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from etl.tokenizer_spec import TokenKind


@dataclass(frozen=True, slots=True)
class Cell:
    """A training: what differs from the first cell of its study."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `labeller train`."""
    encoder: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the encoder."""
    tokens: TokenKind = "wordhash"
    share: float = 1.0
    """Of the training queries, whose pairs are trained on; titles are all there."""
    pretrained: bool = False
    """Whether it starts from MiniLM-L6, with that one's tokenizer."""
    mined: bool = False
    """Whether its dataset has hard negatives, mined by the first cell's encoder."""
    teacher: str = ""
    """Cell of the study whose encoder it learns from."""
    base: str = ""
    """Cell of the study that it is compared with; empty: the first one."""

    kept: bool = False
    """Whether its bundle stays, beside its figures."""

    @property
    def trained(self) -> dict[str, Any]:
        """All that its training depends on, as JSON has it."""
        return {name: value for name, value in json.loads(json.dumps(asdict(self))).items() if name not in ("base", "kept")}


BAG = {"preset": "bag"}
HYBRID = {"preset": "hybrid"}
WIDER = BAG | {"crops": 8.0, "feature_dropout": 0.2, "dim": 512}
SWITCHES = {
    "bag": Cell(BAG),
    "no crops": Cell(BAG | {"crops": 0.0}),
    "1 crop a pair": Cell(BAG | {"crops": 1.0}),
    "5 crops a pair": Cell(BAG | {"crops": 5.0}),
    "8 crops a pair": Cell(BAG | {"crops": 8.0}),
    "16 crops a pair": Cell(BAG | {"crops": 16.0}),
    "12 epochs": Cell(BAG | {"epochs": 12.0}),
    "query-word dropout .5": Cell(BAG | {"query_word_dropout": 0.5}),
    "query-word dropout 1": Cell(BAG | {"query_word_dropout": 1.0}),
    "word dropout .1": Cell(BAG | {"word_dropout": 0.1}),
    "word dropout .2": Cell(BAG | {"word_dropout": 0.2}),
    "feature dropout .2": Cell(BAG | {"feature_dropout": 0.2}),
    "feature dropout .4": Cell(BAG | {"feature_dropout": 0.4}),
    "weights averaged from half": Cell(BAG | {"average_from": 0.5}),
    "multi-positives": Cell(BAG | {"multi_positives": True}),
    "no false-negative masks": Cell(BAG | {"masks": False}),
    "margin .1": Cell(BAG | {"margin": 0.1}),
    "log-q 1": Cell(BAG | {"logq": 1.0}),
    "pair weights": Cell(BAG | {"weight_power": 0.5}),
    "hard negatives, a quarter": Cell(BAG | {"hard_share": 0.25}, mined=True),
    "hard negatives, all": Cell(BAG | {"hard_share": 1.0}, mined=True),
    "64 wide": Cell(BAG | {"dim": 64}),
    "64 wide, taught by the bag": Cell(BAG | {"dim": 64}, teacher="bag", base="64 wide"),
    "512 wide": Cell(BAG | {"dim": 512}),
    "1,024 wide": Cell(BAG | {"dim": 1024}),
}
TAUS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.2)
BATCHES = (64, 256, 1024, 4096, 16_384, 32_768)
CACHE_FROM = 4096
"""Pairs from which on the cached mode is needed here: 4,096 with their crops are some 12,000 texts."""
INPUTS: tuple[tuple[TokenKind, str, str], ...] = (
    ("wordhash", "word hashing", "hybrid"),
    ("wordpiece", "WordPiece", "published"),
    ("both", "both", "hybrid-both"),
)
SAME = {"epochs": 4.0, "batch": 512, "crops": 0.5, "tau": 0.05, "lr": 2e-3}
"""Of every cell of the study `input`, whatever preset knows its tokens: only tokens and layers differ."""
SAME_ENCODER = {"bag": True, "feature_weights": True, "dim": 256, "hidden": 128, "ffn": 512, "heads": 4} | {
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
SHARES = (0.1, 0.3, 1.0)


def _batch(pairs: int, **more: float) -> Cell:
    """As many epochs, so fewer steps the larger the batch, whose rate grows with the root of it (Malladi et al. 2022)."""
    cached = {"cache_texts": 8192} if pairs >= CACHE_FROM else {}
    rate = 2e-3 * (pairs / 256) ** 0.5
    return Cell(BAG | {"batch": pairs, "crops": 1.0, "lr": rate, **cached, **more}, base="256 pairs")


def _share(share: float, layers: int) -> Cell:
    """Of fewer pairs more epochs, so that a third of the pairs still has more than half of the steps."""
    changes = {"preset": "hybrid"} | SAME | {"epochs": 4 / share**0.5} | ({"layers_from": 0.0} if layers else {})
    base = f"{share:.0%} of the queries, 0 layers" if layers else ""
    return Cell(changes, {"layers": layers} | SAME_ENCODER, share=share, base=base)


def _minilm(epochs: float) -> Cell:
    changes = {"preset": "published", "epochs": epochs, "lr": 5e-5, "tau": 0.05, "batch": 256, "crops": 0.5}
    return Cell(changes, tokens="wordpiece", pretrained=True, kept=True)


STUDIES: dict[str, Mapping[str, Cell]] = {
    "switches": SWITCHES,
    "temperature": {f"tau {tau:g}": Cell(BAG | {"tau": tau}, base="tau 0.05") for tau in TAUS}
    | {"tau learned from .05": Cell(BAG | {"learn_tau": True}, base="tau 0.05")},
    "batch": {f"{batch:,} pairs": _batch(batch) for batch in BATCHES}
    | {"1,024 pairs, as many steps as of 256": _batch(1024, epochs=24.0)},
    "input": {
        f"{name}, {layers} layers": Cell(
            {"preset": preset} | SAME,
            {"layers": layers} | SAME_ENCODER,
            tokens=tokens,
            base=f"{name}, 0 layers" if layers else "",
        )
        for tokens, name, preset in INPUTS
        for layers in (0, 2, 6)
    },
    "share": {
        f"{share:.0%} of the queries, {layers} layers": _share(share, layers) for share in SHARES for layers in (0, 2)
    },
    "combined": {
        "bag": Cell(BAG),
        "5 crops a pair": Cell(BAG | {"crops": 5.0}),
        "8 crops a pair": Cell(BAG | {"crops": 8.0}),
        "8 crops, feature dropout .2": Cell(BAG | {"crops": 8.0, "feature_dropout": 0.2}),
        "8 crops, feature dropout .2, 512 wide": Cell(WIDER),
        "8 crops, feature dropout .2, 512 wide, tau .07": Cell(WIDER | {"tau": 0.07}),
        "8 crops, feature dropout .2, 1,024 wide": Cell(WIDER | {"dim": 1024}, kept=True),
        "hybrid, 3 crops": Cell(HYBRID | {"crops": 3.0}),
        "hybrid, 3 crops, layers from the start": Cell(HYBRID | {"crops": 3.0, "layers_from": 0.0}),
        "hybrid, 5 crops": Cell(HYBRID | {"crops": 5.0}),
    },
    "start": {
        "bag": Cell(BAG),
        **{f"MiniLM-L6, {count} at 5e-5": _minilm(epochs) for count, epochs in (("1 epoch", 1.0), ("2 epochs", 2.0))},
    },
}
NOTES = {
    "batch": "As many epochs each: the larger the batch, the fewer the steps.",
    "input": "Layers join in the last tenth of the steps, as in the preset `hybrid`.",
    "share": "Layers take part from the first step. Of fewer queries there are fewer steps, each with as many crops.",
}
"""What a reader of a study's table must know."""
