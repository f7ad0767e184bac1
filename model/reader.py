"""A dataset's rows as training batches: the same number on every rank, every row read, every draw repeatable."""

# B pairs and C crops of a rank's batch

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from etl.dataset import DataFile, Manifest, decode_ids, load_token_table
from etl.errors import InputError
from etl.tokenizer import TokenTable
from model.augment import CropStyle, crop, uniform
from model.loss import Ranks, Rows
from model.packing import PackedTexts, pack

log = logging.getLogger(__name__)

PAIR_COLUMNS = ("query_id", "item_group", "weight", "query_logp", "item_logp", "query", "title", "title_cut")
TITLE_COLUMNS = ("item_group", "title")
Columns = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderConfig:
    """How rows become batches."""

    batch: int
    """Pairs of a rank's batch."""
    crops: float = 3.0
    """Crops per pair."""
    crop_style: CropStyle = "mix"
    crop_tokens: int = 5
    """Most tokens of a crop."""
    query_word_dropout: float = 0.5
    """Share of pairs whose title loses the query's words, where it has others."""
    weight_power: float = 0.0
    """A pair counts its weight to this power; 0: all count the same."""
    shuffle_rows: int = 1_000_000
    """Rows that are shuffled together."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's batch: queries and crops, then the titles that belong to them."""

    texts: PackedTexts
    """2 (B + C) texts."""
    rows: Rows
    """B + C rows."""


@dataclass(frozen=True, slots=True)
class _Texts:
    """Token ids of N texts, end to end."""

    ids: np.ndarray
    offsets: np.ndarray


class TrainingReader:
    """Batches of one rank."""

    def __init__(self, dataset: Path, manifest: Manifest, config: ReaderConfig, ranks: Ranks) -> None:
        self.dataset, self.manifest, self.config, self.ranks = dataset, manifest, config, ranks
        self.special = 1 if manifest.spec["kind"] == "wordpiece" else 0
        self.table: TokenTable | None = None if self.special else load_token_table(dataset)
        self.pairs = rank_files(manifest, "pairs", ranks)
        self.titles = rank_files(manifest, "titles", ranks) if config.crops else ()
        self.batch = fit_batch(manifest, config.batch, ranks.world)
        self.crops = round(self.batch * config.crops)
        if self.crops:
            self.crops = min(self.crops, smallest_share(manifest, "titles", ranks.world))

    @property
    def steps_per_epoch(self) -> int:
        """Full batches that the rank with the fewest rows has: an all-gather waits for everyone."""
        return smallest_share(self.manifest, "pairs", self.ranks.world) // self.batch

    def batches(self, steps: int) -> Iterator[Batch]:
        """``steps`` batches, epoch after epoch."""
        titles = self._endless_titles()
        for step in range(steps):
            epoch, within = divmod(step, self.steps_per_epoch)
            if within == 0:
                pairs = self._rows(self.pairs, "pairs", PAIR_COLUMNS, epoch, self.batch)
            crops, pass_ = next(titles) if self.crops else ({}, 0)
            yield self._batch(next(pairs), crops, epoch, pass_, step)
            if within == self.steps_per_epoch - 1:
                for _ in pairs:  # to the end of the files, where the rows are counted
                    pass

    def _batch(self, pairs: Columns, crops: Columns, epoch: int, pass_: int, step: int) -> Batch:
        dtype, config = self.manifest.token_dtype, self.config
        row_ids = pairs["query_id"] ^ (pairs["item_group"] << np.int64(1))
        cut = uniform(config.seed, epoch, row_ids, 0) < config.query_word_dropout
        titles = [c if use and c else t for t, c, use in zip(pairs["title"], pairs["title_cut"], cut, strict=True)]
        texts = [_decode(pairs["query"], dtype), _decode(titles, dtype)]
        rows = Rows(
            query_id=pairs["query_id"],
            item_group=pairs["item_group"],
            weight=pairs["weight"].astype(np.float64) ** config.weight_power,
            query_logp=pairs["query_logp"].astype(np.float64),
            item_logp=pairs["item_logp"].astype(np.float64),
        )
        if crops:
            whole = _decode(crops["title"], dtype)
            texts = [texts[0], self._crop(whole, crops["item_group"], pass_), texts[1], whole]
            rows = _join(rows, self._crop_rows(crops["item_group"], step))
        joined = _concatenate(texts)
        return Batch(pack(joined.ids, joined.offsets, self.table), rows)

    def _crop(self, whole: _Texts, item_groups: np.ndarray, pass_: int) -> _Texts:
        config = self.config
        part = crop(
            whole.ids,
            whole.offsets,
            item_groups,
            seed=config.seed,
            epoch=pass_,
            style=config.crop_style,
            longest=config.crop_tokens,
            special=self.special,
        )
        return _Texts(*part)

    def _crop_rows(self, item_groups: np.ndarray, step: int) -> Rows:
        """A crop is a query that nobody else has: its id is unique in the step on all ranks."""
        n = len(item_groups)
        first = 1 + (step * self.ranks.world + self.ranks.rank) * n
        logp = np.full(n, -np.log(self.manifest.rows("titles")))
        return Rows(-np.arange(first, first + n), item_groups, np.ones(n), logp, logp)

    def _endless_titles(self) -> Iterator[tuple[Columns, int]]:
        pass_ = 0
        while True:
            for columns in self._rows(self.titles, "titles", TITLE_COLUMNS, pass_, self.crops):
                yield columns, pass_
            pass_ += 1

    def _rows(self, files: Sequence[DataFile], part: str, names: Sequence[str], epoch: int, size: int) -> Iterator[Columns]:
        """One pass over files in shuffled chunks of ``size`` rows; a last, smaller one is dropped.

        Raises:
            RuntimeError: other rows came than the manifest says; nothing may be trained on less without a word.
        """
        rng = np.random.default_rng((self.config.seed, epoch, self.ranks.rank, part == "titles"))
        held: list[Columns] = []
        read = count = 0
        for group in _row_groups(self.dataset, files, names, epoch):
            held.append(group)
            read += len(group[names[0]])
            count += len(group[names[0]])
            if count >= self.config.shuffle_rows:
                block = _shuffled(held, rng)
                full = count - count % size
                yield from _chunks(block, full, size)
                held, count = [{k: v[full:] for k, v in block.items()}], count - full
        if held:
            yield from _chunks(_shuffled(held, rng), count - count % size, size)
        expected = sum(file.rows for file in files)
        if read != expected:
            raise RuntimeError(
                f"epoch {epoch}, rank {self.ranks.rank}: read {read} rows of {part}, the manifest says {expected}"
            )


def rank_files(manifest: Manifest, part: Literal["pairs", "titles"], ranks: Ranks) -> tuple[DataFile, ...]:
    """The files that a rank reads: every ``world``-th.

    Raises:
        InputError: fewer files with rows in them than ranks.
    """
    files = tuple(file for file in manifest.files(part) if file.rows)
    if len(files) < ranks.world:
        raise InputError(
            f"{part}/ has {len(files)} files with rows in them for {ranks.world} ranks: build the dataset with at least "
            f"--files {ranks.world}, or train on fewer --ranks"
        )
    return files[ranks.rank :: ranks.world]


def smallest_share(manifest: Manifest, part: Literal["pairs", "titles"], world: int) -> int:
    """Rows of the rank that has the fewest."""
    return min(sum(f.rows for f in rank_files(manifest, part, Ranks(rank, world))) for rank in range(world))


def fit_batch(manifest: Manifest, wanted: int, world: int) -> int:
    """``wanted``, or an eighth of a rank's rows where those are few: a handful of steps trains nothing."""
    fitting = max(smallest_share(manifest, "pairs", world) // 8, 1)
    if fitting < wanted:
        log.info(
            "%d pairs a rank are few: batch %d instead of %d", smallest_share(manifest, "pairs", world), fitting, wanted
        )
    return min(wanted, fitting)


def _row_groups(dataset: Path, files: Sequence[DataFile], names: Sequence[str], epoch: int) -> Iterator[Columns]:
    """Row groups of files in an order drawn from the epoch; the dummy pool keeps that order repeatable."""
    with _quiet_petastorm():
        from petastorm import make_batch_reader

        reader = make_batch_reader(
            [f"file://{(dataset / file.path).resolve()}" for file in files],  # petastorm does not decode %3D
            schema_fields=list(names),
            reader_pool_type="dummy",
            num_epochs=1,
            shuffle_row_groups=True,
            seed=epoch + 1,  # 0 counts as no seed
        )
    with reader:
        while True:
            with _quiet_petastorm():
                group = next(reader, None)
            if group is None:
                return
            yield {name: getattr(group, name) for name in names}


@contextlib.contextmanager
def _quiet_petastorm() -> Iterator[None]:
    """Without the page of warnings a reader that petastorm 0.12.1 earns on pyarrow 14."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _shuffled(groups: Sequence[Columns], rng: np.random.Generator) -> Columns:
    joined = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    order = rng.permutation(len(next(iter(joined.values()))))
    return {name: values[order] for name, values in joined.items()}


def _chunks(block: Columns, rows: int, size: int) -> Iterator[Columns]:
    for start in range(0, rows, size):
        yield {name: values[start : start + size] for name, values in block.items()}


def _decode(values: Sequence[bytes] | np.ndarray, dtype: str) -> _Texts:
    lengths = np.fromiter(map(len, values), dtype=np.int64) // np.dtype(dtype).itemsize
    return _Texts(decode_ids(b"".join(values), dtype), np.concatenate([[0], np.cumsum(lengths)]))


def _concatenate(texts: Sequence[_Texts]) -> _Texts:
    lengths = np.concatenate([np.diff(t.offsets) for t in texts])
    return _Texts(np.concatenate([t.ids for t in texts]), np.concatenate([[0], np.cumsum(lengths)]))


def _join(first: Rows, second: Rows) -> Rows:
    names = Rows.__dataclass_fields__
    return Rows(**{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names})
