"""The encoders that can be trained, and how each is trained unless the configuration says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from etl.errors import InputError, OtherContract
from etl.tokenizer_spec import TokenKind


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """All that decides the encoder's parameters and what it computes; ``encoder.json`` of a bundle."""

    tokens: TokenKind = "wordhash"
    """What a token is, see :mod:`etl.tokenizer`."""
    rows: int = 2**17
    """Rows of the embedding table, as in the tokenizer's spec."""
    dim: int = 256
    """Width of the result, and of the word vectors where there is a bag."""
    bag: bool = True
    """Whether the weighted sum of the word vectors enters the result."""
    feature_weights: bool = True
    """Whether each feature has a learned weight in its words."""
    token_weights: bool = False
    """Whether each word has a learned weight in its texts, from its features."""
    layers: int = 0
    """Transformer layers over the word vectors; 0 leaves the bag alone."""
    hidden: int = 256
    heads: int = 4
    ffn: int = 1024
    positions: int = 128
    """Longest text, in tokens, that the Transformer takes."""
    dropout: float = 0.0
    """Dropout inside the Transformer but for attention, in training."""
    attention_dropout: float = 0.0
    """Dropout of attention's probabilities, in training; with it a GPU attends by groups of equal length, since torch's
    variable-length kernel has none."""
    layer_norm_eps: float = 1e-12
    matryoshka: tuple[int, ...] = ()
    """Numbers of first coordinates, ascending, that were trained to be vectors of their own (:mod:`model.matryoshka`)."""

    def __post_init__(self) -> None:
        problems = []
        if not self.bag and not self.layers:
            problems.append("bag = false and layers = 0 leave nothing to compute a text's vector from")
        if self.layers and self.hidden % self.heads:
            problems.append(f"hidden = {self.hidden} is no multiple of heads = {self.heads}")
        shorter = sorted({d for d in self.matryoshka if 0 < d < self.dim})
        if list(self.matryoshka) != shorter:
            instead = " ".join(map(str, shorter or [self.dim // 2]))
            problems.append(
                f"matryoshka = {list(self.matryoshka)}, but vectors are {self.dim} wide, by the preset or by dim (expected "
                f"ascending numbers below that; the whole is always trained): give {instead}, or a larger dim"
            )
        if problems:
            raise InputError.of(problems, heading="encoder refused:")

    @property
    def width(self) -> int:
        """Width of the word vectors: without a bag they go into the layers as they are."""
        return self.dim if self.bag else self.hidden

    @property
    def head(self) -> bool:
        """Whether a linear head takes the mean of the last layer from ``hidden`` to ``dim``."""
        return not self.bag and self.hidden != self.dim

    @property
    def is_bert(self) -> bool:
        """Whether it is Hugging Face's BertModel, mean pooling, and the head if there is one."""
        return self.tokens == "wordpiece" and not (self.bag or self.feature_weights or self.token_weights)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> EncoderConfig:
        """The config that ``asdict`` made ``raw`` of.

        Raises:
            OtherContract: a field is unknown to this version.
        """
        unknown = sorted(set(raw) - set(cls.__dataclass_fields__))
        if unknown:
            raise OtherContract(f"encoder config has unknown fields {unknown}: a newer version of this package made it")
        return cls(**{**raw, "matryoshka": tuple(raw.get("matryoshka", ()))})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """An encoder and the training settings that suit it; batch sizes are per rank."""

    encoder: EncoderConfig
    tau: float = 0.05
    lr: float = 2e-3
    epochs: float = 6.0
    batch: int = 256
    crops: float = 3.0
    """Crops per pair in a batch."""
    weight_lr: float = 5.0
    """Learning rate of the weights of rows, in units of ``lr``."""
    layers_lr: float = 0.25
    """Learning rate of the Transformer, in units of ``lr``."""
    layers_from: float = 0.0
    """Share of the steps that the bag trains alone, before the Transformer beside it is computed at all."""

    def with_settings(self, **settings: Any) -> Preset:
        """This preset with those settings that are not None."""
        return replace(self, **{name: value for name, value in settings.items() if value is not None})


PRESETS: dict[str, Preset] = {
    # 20 million parameters beside the table: for GPUs, longer queries and real logs. BERT drops out attention too; here it
    # does not, so that a GPU attends by the variable-length kernel and a CPU trains the same.
    "published": Preset(
        encoder=EncoderConfig(
            tokens="wordpiece",
            rows=30_000,
            dim=512,
            bag=False,
            feature_weights=False,
            layers=6,
            hidden=512,
            heads=8,
            ffn=2048,
            positions=100,
            dropout=0.1,
        ),
        tau=0.1,
        lr=2e-4,
        layers_lr=1.0,
        epochs=10.0,
        batch=256,
        crops=0.5,
    ),
    # For logs with many pairs a title: in 415 steps of the bag, term hit@1 on the generated shop's titles that lack their
    # term was .842 with half a crop a pair, .834 with one, .744 with three. A step with the layers takes eight times the
    # bag's (1.3 s for .17 s of a core at 256 pairs + 768 crops), so they join at the end.
    "hybrid": Preset(
        encoder=EncoderConfig(layers=2, hidden=128, ffn=512), epochs=5.0, batch=512, crops=0.5, layers_from=0.9
    ),
    # The hybrid on WordPiece's sequence, each piece with its word's n-grams.
    "hybrid-both": Preset(
        encoder=EncoderConfig(tokens="both", layers=2, hidden=128, ffn=512),
        epochs=5.0,
        batch=512,
        crops=0.5,
        layers_from=0.9,
    ),
    # For few pairs beside many titles: on Home Depot three crops a pair beat one (.583 to .574, mean of three measures).
    "bag": Preset(encoder=EncoderConfig()),
    "tiny": Preset(
        encoder=EncoderConfig(rows=2**12, dim=32, layers=1, hidden=16, heads=2, ffn=32),
        epochs=2.0,
        batch=32,
        crops=1.0,
        lr=5e-3,
    ),
}


def preset(name: str, *, rows: int, tokens: str, positions: int) -> Preset:
    """The preset ``name`` for the table and the text length of a tokenizer.

    Raises:
        InputError: no such preset, or one for another kind of tokens.
    """
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is unknown: expected one of {', '.join(PRESETS)}")
    found = PRESETS[name]
    if found.encoder.tokens != tokens:
        raise InputError(
            f"preset {name!r} needs {found.encoder.tokens} tokens, the dataset has {tokens}: "
            f"build the dataset with --tokenizer {found.encoder.tokens}, or choose another preset"
        )
    encoder = replace(found.encoder, rows=rows, positions=max(found.encoder.positions, positions))
    return replace(found, encoder=encoder)
