"""The query side for an online service: ONNX Runtime and our tokenizer, without torch and without Spark.

:mod:`labeling.export_onnx` makes the directory: ``encoder.onnx`` and its weights, the tokenizer, ``example.py``,
``README.md``, and ``manifest.json`` with the bundle's id and the SHA-256 of each.
"""

# B texts, L tokens of the longest, F features of all tokens, D embedding

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from etl.durable import read_json
from etl.errors import InputError
from etl.tokenizer import HashedTokenizer, Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = 1
GRAPH_FILE, MANIFEST_FILE = "encoder.onnx", "manifest.json"


class Batch(NamedTuple):
    """One padded batch of texts, as the graph takes it; int64."""

    features: np.ndarray
    """[F] rows of the embedding table, those of all tokens end to end."""
    feature_tokens: np.ndarray
    """[F] the token of each, counted through the padded batch: (number of the text) x L + (place in the text)."""
    mask: np.ndarray
    """[B, L] 1 where a text has a token, 0 where it is filled up; L is at least 1."""


INPUTS, OUTPUT = Batch._fields, "vectors"


@dataclass(frozen=True, slots=True)
class OnlineEncoder:
    """A loaded, verified export; threads may share it."""

    manifest: Mapping[str, Any]
    tokenizer: Tokenizer
    session: InferenceSession

    @property
    def bundle(self) -> str:
        """Id of the bundle that it was made of: vectors of items must be of the same."""
        return str(self.manifest["bundle"])

    def encode(self, queries: Sequence[str]) -> np.ndarray:
        """Raw queries -> float32 unit vectors [B, D]; one without a token gets the zero vector."""
        if not len(queries):
            return np.empty((0, self.manifest["dim"]), dtype=np.float32)
        vectors: np.ndarray = self.session.run([OUTPUT], batch_of(self.tokenizer, queries)._asdict())[0]
        return vectors


def load_online_encoder(path: Path | str) -> OnlineEncoder:
    """What `labeller export-onnx` wrote, its files verified against their hashes.

    Raises:
        InputError: no export there, another format, files missing or changed, another text normaliser installed than the
            bundle's, or no onnxruntime.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise InputError("the package onnxruntime is not installed: `pip install onnxruntime`, or `make setup`") from None
    path = Path(path)
    manifest, tokenizer = verify(path), load_tokenizer(path)
    options = onnxruntime.SessionOptions()
    # A query takes less than a millisecond of one core: a service asks several side by side instead of splitting one.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path / GRAPH_FILE), options, providers=["CPUExecutionProvider"])
    return OnlineEncoder(manifest, tokenizer, session)


def batch_of(tokenizer: Tokenizer, queries: Sequence[str]) -> Batch:
    """Raw queries, cut at the queries' limit, as a padded batch."""
    texts = [_tokens(tokenizer, query) for query in queries]
    longest = max([1, *map(len, texts)])
    bags = [(row * longest + place, bag) for row, text in enumerate(texts) for place, bag in enumerate(text)]
    return Batch(
        features=np.array([feature for _, bag in bags for feature in bag], dtype=np.int64),
        feature_tokens=np.array([token for token, bag in bags for _ in bag], dtype=np.int64),
        mask=np.array([[place < len(text) for place in range(longest)] for text in texts], dtype=np.int64),
    )


def verify(path: Path) -> dict[str, Any]:
    """The manifest of an export that is whole.

    Raises:
        InputError: no export there, another format, or files missing or changed: all of them, by name.
    """
    if not (path / MANIFEST_FILE).is_file():
        raise InputError(f"{path} holds no export (no {MANIFEST_FILE}): make one with `labeller export-onnx`")
    manifest = read_json(path / MANIFEST_FILE, cure="copy the export again, or run `labeller export-onnx` again")
    if manifest.get("onnx_export") != FORMAT:
        found = manifest.get("onnx_export")
        raise InputError(f"{path}: export format {found!r}, this version reads {FORMAT}: run `labeller export-onnx` again")
    wrong = [f"{name} is missing or changed" for name, sha256 in manifest["files"].items() if _sha256(path / name) != sha256]
    if wrong:
        raise InputError.of(wrong, heading=f"export {path} is damaged (copy it again, or `labeller export-onnx`):")
    return manifest


def hashes(path: Path) -> dict[str, str]:
    """SHA-256 of each file of a directory."""
    return {file.name: _sha256(file) for file in sorted(path.iterdir())}


def _tokens(tokenizer: Tokenizer, query: str) -> list[list[int]]:
    """The features of each token."""
    if isinstance(tokenizer, HashedTokenizer):
        return [tokenizer.features(token) for token in tokenizer.tokens(query, "query")]
    return [[row] for row in tokenizer.ids(query, "query").tolist()]


def _sha256(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
