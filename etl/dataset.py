"""The tokenised dataset on disk: its parts, its manifest, and the check that stands before every read.

Plain Python without Spark, so that each training rank can use it. Layout of ``datasets/ds=.../``::

    pairs/      Petastorm, pairs to train on: pair_id, query_group, item_group, weight, query_logp, item_logp, query,
                title, title_cut
    titles/     Petastorm, every distinct title that may be trained on: title_id, item_group, item_logp, title
    corpus/     Parquet, the held-out titles that no crop may show: title_id, title
    heldout/    Parquet, a row per held-out query of a split: split, query_id, query, query_typos, language, frequency,
                title_ids that were clicked for it, seen_title_ids that training shows with it; see etl.heldout
    known/      Parquet, all clicked pairs of the training split: query_group, item_group
    tokens.parquet, tokenizer_spec.json, tokenizer.json, manifest.json

Queries equal up to word order and plural share a query_group, near-duplicate titles an item_group: neither is a negative of
its like. query_logp and item_logp are ln of the share of the rows of pairs/ that show the query (the title), -inf for a
title that no pair shows. Mined hard negatives (`labeller mine`) are further columns of pairs/: hard_title_0, hard_group_0
and so on, one of each for every negative that a pair has; the title is empty where there is none. Texts are binary columns
of little-endian token ids (:attr:`Manifest.token_dtype`). The Unischema inside a Petastorm directory is a pickle: nothing
there may be opened before :func:`verify` has compared its hash. A part without rows has one file all the same, for its
columns.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.durable import read_json, write
from etl.errors import InputError
from etl.tokenizer import TokenTable

FORMAT_VERSION = 3
MANIFEST_FILE = "manifest.json"
TOKENS_FILE = "tokens.parquet"
Part = Literal["pairs", "titles", "corpus", "heldout", "known", "tokens", "tokenizer"]
ROW_PARTS: tuple[Part, ...] = ("pairs", "titles", "corpus", "heldout", "known")

COLUMNS: dict[Part, dict[str, str]] = {
    "pairs": {
        "pair_id": "int64",
        "query_group": "int64",
        "item_group": "int64",
        "weight": "float",
        "query_logp": "float",
        "item_logp": "float",
        "query": "binary",
        "title": "binary",
        "title_cut": "binary",
    },
    "titles": {"title_id": "int64", "item_group": "int64", "item_logp": "float", "title": "binary"},
    "corpus": {"title_id": "int64", "title": "binary"},
    "heldout": {
        "split": "string",
        "query_id": "int64",
        "query": "binary",
        "query_typos": "binary",
        "language": "string",
        "frequency": "string",
        "title_ids": "list",
        "seen_title_ids": "list",
    },
    "known": {"query_group": "int64", "item_group": "int64"},
}
"""Columns that this format needs, with their Arrow types; those of a list's items are left open."""

HARD_NEGATIVE: dict[str, str] = {"hard_title": "binary", "hard_group": "bigint"}
"""What is kept of the n-th hard negative of a pair, each with ``_n`` behind its name, and Spark's type of it."""

_CURE = "build it again with `labeller dataset`"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """One file of a dataset; ``path`` is relative to the dataset, ``rows`` is 0 for files that hold none."""

    path: str
    rows: int
    size: int
    """Bytes."""
    sha256: str

    @classmethod
    def of(cls, directory: Path, path: Path) -> DataFile:
        """The entry of a file that lies under ``directory``."""
        rows = pq.read_metadata(path).num_rows if path.suffix == ".parquet" else 0
        name = path.relative_to(directory).as_posix()
        return cls(path=name, rows=rows, size=path.stat().st_size, sha256=_sha256(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a dataset holds; written last, so that a dataset with a manifest is complete."""

    ds: dt.date
    token_dtype: Literal["int64", "uint32"]
    """Type of the token ids in binary columns, little-endian."""
    tokenizer: str
    """Hash of the tokenizer, see :func:`etl.tokenizer.tokenizer_hash`."""
    normaliser: str
    """Hash of the text normaliser, see :attr:`etl.text.Normaliser.hash`."""
    spec: Mapping[str, Any]
    """The tokenizer's spec."""
    inputs: Mapping[str, str]
    """Versions of the tables it was made from."""
    parts: Mapping[Part, tuple[DataFile, ...]]
    """Files in the order of their names."""
    schema: Mapping[Part, Mapping[str, str]]
    """Columns of each part with their Arrow types, see :func:`schemas`."""
    languages: Mapping[str, int] = field(default_factory=dict)
    """Distinct queries of pairs/ by :func:`etl.text.language_of`; empty: not known."""
    scripts: Mapping[str, int] = field(default_factory=dict)
    """Distinct titles of pairs/ by :func:`etl.text.script_of`; empty: not known."""
    ranks: int = 0
    """Training ranks that the files were balanced for; 0: not known."""
    cleaning: Mapping[str, Any] = field(default_factory=dict)
    """``settings`` and ``counts`` of the stage that made the pairs, as RUNS has them; empty: not known."""

    @property
    def digest(self) -> str:
        """SHA-256 of all that the manifest says of the dataset's bytes, whatever tables they were made from."""
        return hashlib.sha256(replace(self, inputs={}, cleaning={})._json().encode()).hexdigest()

    @property
    def hashed(self) -> bool:
        """Whether token ids are hashes, which :func:`load_token_table` has the features of; else rows of a vocabulary."""
        return bool(self.spec["kind"] != "wordpiece")

    @property
    def hard_negatives(self) -> int:
        """How many mined hard negatives each pair has."""
        return sum(name.startswith("hard_title_") for name in self.schema.get("pairs", {}))

    def rows(self, part: Part) -> int:
        return sum(file.rows for file in self.parts[part])

    def files(self, part: Part) -> tuple[DataFile, ...]:
        """Files of a part that hold rows, so without Petastorm's metadata."""
        return tuple(file for file in self.parts[part] if file.path.endswith(".parquet"))

    def write(self, directory: Path) -> None:
        """Lay the manifest down by rename: either all of it is there or nothing."""
        write(directory / MANIFEST_FILE, (self._json() + "\n").encode())

    def _json(self) -> str:
        content = {"format_version": FORMAT_VERSION, **asdict(self), "ds": self.ds.isoformat()}
        if not self.cleaning:
            del content["cleaning"]  # a manifest of before there was this keeps its digest
        content["totals"] = {part: self.rows(part) for part in self.parts}
        return json.dumps(content, indent=1, sort_keys=True)

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """The manifest alone, its files unchecked; :func:`verify` is what a reader wants.

        Raises:
            InputError: there is none, it is of another format, or cut or otherwise damaged.
        """
        path = directory / MANIFEST_FILE
        if not path.is_file():
            raise InputError(f"dataset {directory} has no {MANIFEST_FILE}: it is not there or was not finished; {_CURE}")
        content = read_json(path, cure=_CURE)
        if content.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{path}: format_version {content.get('format_version')!r} (expected {FORMAT_VERSION}); {_CURE}"
            )
        keys = ("token_dtype", "tokenizer", "normaliser", "spec", "inputs", "schema", "languages", "ranks")
        try:
            parts = {part: tuple(DataFile(**file) for file in content["parts"][part]) for part in get_args(Part)}
            known = {key: content[key] for key in keys} | {key: content.get(key, {}) for key in ("scripts", "cleaning")}
            return cls(ds=dt.date.fromisoformat(content["ds"]), parts=parts, **known)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); {_CURE}") from None


def verify(directory: Path) -> Manifest:
    """The manifest of a dataset whose files are exactly those that it lists, byte for byte.

    Raises:
        InputError: no manifest; a part lacks a column; a file is missing, changed, not listed, or a link. All are named.
    """
    manifest = Manifest.read(directory)
    if lacking := _lacking(manifest):
        raise InputError.of(lacking, heading=f"dataset {directory} is not of format {FORMAT_VERSION}; {_CURE}:")
    listed = {file.path: file for files in manifest.parts.values() for file in files}
    present = {p.relative_to(directory).as_posix(): p for p in data_files(directory)}
    problems = [f"{path} is missing" for path in sorted(listed.keys() - present.keys())]
    problems += [f"{path} is not in the manifest" for path in sorted(present.keys() - listed.keys())]
    problems += [f"{path} is a link (expected a file)" for path, file in present.items() if file.is_symlink()]
    both = sorted(listed.keys() & present.keys())
    with ThreadPoolExecutor() as pool:  # other ranks wait at a barrier; hashing leaves the interpreter's lock alone
        problems += filter(None, pool.map(lambda path: _difference(present[path], listed[path]), both))
    if problems:
        raise InputError.of(problems, heading=f"dataset {directory} does not match its {MANIFEST_FILE}; {_CURE}:")
    return manifest


def schemas(directory: Path, parts: Mapping[Part, Sequence[DataFile]]) -> dict[Part, dict[str, str]]:
    """Columns of each part that holds rows, with their Arrow types, from the footers of its Parquet files.

    Raises:
        InputError: files of a part differ; all such parts are named.
    """
    found: dict[Part, dict[str, str]] = {}
    problems = []
    for part in ROW_PARTS:
        paths = [file.path for file in parts[part] if file.path.endswith(".parquet")]
        each = [{f.name: str(f.type) for f in pq.read_schema(directory / path)} for path in paths]
        problems += [
            f"{path} has {b}, {paths[0]} has {each[0]}" for path, b in zip(paths, each, strict=True) if b != each[0]
        ]
        found[part] = each[0] if each else {}
    if problems:
        raise InputError.of(problems, heading=f"dataset {directory}: files of one part differ in columns; {_CURE}:")
    return found


def _difference(path: Path, listed: DataFile) -> str | None:
    """What is wrong with a file, cheap things first."""
    size = path.stat().st_size
    if size != listed.size:
        return f"{listed.path} has {size} bytes (expected {listed.size})"
    return None if _sha256(path) == listed.sha256 else f"{listed.path} has another SHA-256 than the manifest says"


def _lacking(manifest: Manifest) -> list[str]:
    problems = []
    for part, columns in COLUMNS.items():
        found = manifest.schema.get(part, {})
        for name, kind in columns.items():
            if name not in found:
                problems.append(f"{part}/ has no column {name} (expected {kind}, found {sorted(found) or 'no file'})")
            elif found[name].split("<")[0] != kind:
                problems.append(f"{part}/ has {name} as {found[name]} (expected {kind})")
    return problems


def data_files(directory: Path) -> list[Path]:
    """Every file of a dataset but its manifest, in the order of their names."""
    return sorted(p for p in directory.rglob("*") if p.is_file() and p != directory / MANIFEST_FILE)


def decode_ids(value: bytes, token_dtype: str) -> np.ndarray:
    """Token ids of one text or of joined texts, int64."""
    return np.frombuffer(value, dtype=np.dtype(token_dtype).newbyteorder("<")).astype(np.int64)


def encode_ids(ids: np.ndarray, token_dtype: str) -> bytes:
    """The inverse of :func:`decode_ids`."""
    return ids.astype(np.dtype(token_dtype).newbyteorder("<")).tobytes()


def load_token_table(directory: Path) -> TokenTable:
    """Features of every token of a dataset whose ids are hashes, ids ascending."""
    table = pq.read_table(directory / TOKENS_FILE)
    lengths = pc.binary_length(table["features"]).to_numpy() // 4
    return TokenTable(
        ids=table["id"].to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        features=np.frombuffer(b"".join(table["features"].to_pylist()), dtype="<u4").astype(np.int64),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
