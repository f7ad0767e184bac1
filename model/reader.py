"""A dataset's rows as training batches: the same number on every rank, every row read, every draw repeatable."""

# B pairs and C crops of a rank's batch

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset import Manifest, load_token_table
from etl.errors import InputError
from etl.tokenizer import TokenTable
from model.augment import CropStyle, crop, thinned, uniform
from model.blocks import Block, Texts, blocks, decode
from model.hard_negatives import HardConfig, hard_columns, one_of_each
from model.loss import NO_ITEM, Rows
from model.packing import PackedTexts, Packer
from model.positions import Position
from model.ranks import Ranks
from model.row_groups import Source, row_groups
from model.shares import TrainedPart, rank_files, require_enough, smallest_share

PAIR_COLUMNS = (
    "pair_id", "query_group", "item_group", "weight", "query_logp", "item_logp", "query", "title", "title_cut"
)  # fmt: skip
TITLE_COLUMNS = ("title_id", "item_group", "item_logp", "title")
LOADING = ("read_ahead", "reader_timeout_s")
"""Settings that change no batch."""


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
    word_dropout: float = 0.0
    """Share of the words of every text that a batch leaves out."""
    feature_dropout: float = 0.0
    """Share of the features of every distinct token that a batch leaves out."""
    weight_power: float = 0.0
    """A pair counts its weight to this power; 0: all count the same."""
    shuffle_rows: int = 1_000_000
    """Rows that are shuffled together."""
    hard: HardConfig = field(default_factory=HardConfig)
    seed: int = 0
    read_ahead: int = 4
    """Row groups that are read before they are asked for."""
    reader_timeout_s: float = 300.0
    """Longest wait for a row group."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's batch: queries and crops, then the titles that belong to them, then hard negatives."""

    texts: PackedTexts
    """2 (B + C) + H texts."""
    rows: Rows
    """B + C rows."""
    hard: np.ndarray | None = None
    """[H] item groups, the same number on each rank; none before they are due."""


class TrainingReader:
    """Batches of one rank."""

    def __init__(self, dataset: Path, manifest: Manifest, config: ReaderConfig, ranks: Ranks) -> None:
        self.dataset, self.manifest, self.config, self.ranks = dataset, manifest, config, ranks
        self.special = 0 if manifest.spec["kind"] == "wordhash" else 1  # [CLS] and [SEP]
        self.table: TokenTable | None = load_token_table(dataset) if manifest.hashed else None
        self.pairs = rank_files(manifest, "pairs", ranks)
        self.titles = rank_files(manifest, "titles", ranks) if config.crops else ()
        require_enough(manifest, config.batch, ranks.world)
        config.hard.require(manifest)
        if config.feature_dropout and self.table is None:
            raise InputError(
                f"feature_dropout is {config.feature_dropout}, but a WordPiece token has no n-grams to leave out "
                "(expected 0): set word_dropout instead, or build the dataset with --tokenizer wordhash or both"
            )
        self.batch = config.batch
        self.crops = round(self.batch * config.crops)
        if self.crops:
            self.crops = min(self.crops, smallest_share(manifest, "titles", ranks.world))
        self.title_logp = -float(np.log(max(manifest.rows("titles"), 1))) if self.crops else -np.inf

    @property
    def _columns(self) -> tuple[str, ...]:
        """Of the pairs."""
        return PAIR_COLUMNS + (hard_columns(self.manifest.hard_negatives) if self.config.hard.share else ())

    @property
    def steps_per_epoch(self) -> int:
        """Full batches that the rank with the fewest rows has: an all-gather waits for everyone."""
        return smallest_share(self.manifest, "pairs", self.ranks.world) // self.batch

    def position(self, step: int) -> Position:
        """What a checkpoint after ``step`` batches keeps."""
        hard = {"hard_share": self.config.hard.share, "hard_from": self.config.hard.start}
        settings = asdict(self.config) | {"batch": self.batch, "crops": self.crops} | hard
        del settings["hard"]
        kept = {name: value for name, value in settings.items() if name not in LOADING}
        return Position(step=step, dataset=self.manifest.digest, world=self.ranks.world, settings=kept)

    def batches(self, steps: int, start: Position | None = None) -> Iterator[Batch]:
        """Batches ``start.step`` (0 without ``start``) to ``steps``, epoch after epoch, as an uninterrupted run has them.

        Raises:
            InputError: ``start`` is of another dataset, number of ranks or settings.
            RuntimeError: other rows came than the manifest says; nothing may be trained on less without a word.
            ReaderStalled, UnreadableFile: see :func:`model.row_groups.row_groups`.
        """
        if start is not None:
            start.require_same(self.position(0))
        return self._batches(steps, start.step if start else 0)

    def _batches(self, steps: int, first: int) -> Iterator[Batch]:
        packer, config = Packer(self.table, ids=self.manifest.spec.get("rows", 0)), self.config
        with closing(self.flat(steps, first)) as batches:
            for step, (texts, rows, hard) in enumerate(batches, start=first):
                draw = np.random.default_rng((config.seed, step, self.ranks.rank, 2))
                ids, offsets = texts.ids, texts.offsets
                if config.word_dropout:
                    ids, offsets = thinned(ids, offsets, config.word_dropout, draw=draw, special=self.special)
                packed = packer.pack(ids, offsets)
                if config.feature_dropout:
                    packed = packed.without_features(config.feature_dropout, draw)
                yield Batch(packed, rows, hard)

    def flat(self, steps: int, first: int = 0) -> Generator[tuple[Texts, Rows, np.ndarray | None], None, None]:
        """Batches ``first`` to ``steps`` as token ids end to end, before the tokens' features are looked up."""
        with closing(self._passes("pairs", first)) as pairs, closing(self._passes("titles", first)) as titles:
            for step in range(first, steps):
                block, pass_ = next(pairs)
                parts = [self._pairs(block, pass_)]
                if self.crops:
                    parts.append(self._crops(*next(titles)))
                queries, answers, rows = zip(*parts, strict=True)
                columns = {name: np.concatenate([getattr(r, name) for r in rows]) for name in Rows.__dataclass_fields__}
                titles_, hard = self._hard(block, self.config.hard.rows(step, steps, self.batch))
                yield Texts.joined([*queries, *answers, *titles_]), Rows(**columns), hard

    def _hard(self, block: Block, rows: int) -> tuple[list[Texts], np.ndarray | None]:
        """The hard negatives of a batch's first rows, whose order is random, and their item groups."""
        if not rows:
            return [], None
        part = block.part(0, rows)
        titles = part.texts["hard_title"]
        return [titles], np.where(np.diff(titles.offsets) > 0, part.numbers["hard_group"], NO_ITEM)

    def _pairs(self, block: Block, _: int) -> tuple[Texts, Texts, Rows]:
        of = block.numbers
        return (
            block.texts["query"],
            block.texts["title"],
            Rows(
                query_group=of["query_group"],
                item_group=of["item_group"],
                weight=of["weight"].astype(np.float64) ** self.config.weight_power,
                query_logp=column_logp(of["query_logp"], -np.inf, self.batch, self.crops),
                item_logp=column_logp(of["item_logp"], self.title_logp, self.batch, self.crops),
            ),
        )

    def _crops(self, block: Block, pass_: int) -> tuple[Texts, Texts, Rows]:
        """A crop is a query that nobody else has: its group is unique in the step on all ranks."""
        of, config, whole = block.numbers, self.config, block.texts["title"]
        n = len(of["title_id"])
        part = crop(
            whole.ids,
            whole.offsets,
            of["title_id"],
            seed=config.seed,
            epoch=pass_,
            style=config.crop_style,
            longest=config.crop_tokens,
            special=self.special,
        )
        columns = Rows(
            query_group=np.iinfo(np.int64).min + self.ranks.rank * n + np.arange(n),
            item_group=of["item_group"],
            weight=np.ones(n),
            query_logp=column_logp(np.full(n, -np.inf), self.title_logp, self.batch, self.crops),
            item_logp=column_logp(of["item_logp"], self.title_logp, self.batch, self.crops),
        )
        return Texts(*part), whole, columns

    def _passes(self, part: TrainedPart, first: int) -> Generator[tuple[Block, int], None, None]:
        """Batches of a part from the ``first``-th on, pass after pass without end."""
        pass_, skip = divmod(first, self._length(part))
        while True:
            yield from self.one_pass(part, pass_, skip)
            pass_, skip = pass_ + 1, 0

    def _length(self, part: TrainedPart) -> int:
        return self.steps_per_epoch if part == "pairs" else sum(file.rows for file in self.titles) // self.crops

    def one_pass(self, part: TrainedPart, pass_: int, skip: int = 0) -> Generator[tuple[Block, int], None, None]:
        """Batches of one pass over a part from the ``skip``-th on: rows by column, and the number of the pass."""
        files, size = (self.pairs, self.batch) if part == "pairs" else (self.titles, self.crops)
        who = f"{part}, epoch {pass_}, rank {self.ranks.rank} of {self.ranks.world}"
        key = (self.config.seed, pass_, self.ranks.rank, int(part == "titles"))
        source = Source(
            files=[self.dataset / file.path for file in files],
            columns=self._columns if part == "pairs" else TITLE_COLUMNS,
            seed=1 + int(np.random.default_rng(key).integers(2**31)),
            who=who,
        )
        config = self.config
        with closing(row_groups(source, ahead=config.read_ahead, timeout_s=config.reader_timeout_s)) as groups:
            counted = _counted(groups, sum(file.rows for file in files), who)
            found = blocks(
                (self._shown(group, pass_) for group in counted) if part == "pairs" else counted,
                batch=size,
                rows=config.shuffle_rows,
                skip=skip,
                shuffle=lambda number: np.random.default_rng((*key, number)),
            )
            left = self._length(part) - skip
            for table in found:
                block = decode(table, self.manifest.token_dtype)
                for start in range(0, len(table), size)[:left]:
                    left -= 1
                    if not left:
                        for _ in counted:  # to the end of the files, where the rows are counted
                            pass
                    yield block.part(start, start + size), pass_
                if not left:
                    return

    def _shown(self, pairs: pa.Table, epoch: int) -> pa.Table:
        """Pairs with the title that each shows in this epoch: the whole one, or the one without the query's words."""
        draw = uniform(self.config.seed, epoch, pairs["pair_id"].to_numpy(), 0) < self.config.query_word_dropout
        # An empty one says that the title has none of the query's words, or no others.
        use = pc.and_(pa.array(draw), pc.greater(pc.binary_length(pairs["title_cut"]), 0))
        shown = pc.if_else(use, pairs["title_cut"], pairs["title"])
        if self.config.hard.share:
            pairs = one_of_each(pairs, self.config.seed, epoch, none=use)
        return pairs.drop(["pair_id", "title_cut", "title"]).append_column("title", shown)


def column_logp(pair_logp: np.ndarray, crop_logp: float, pairs: int, crops: int) -> np.ndarray:
    """Log-probability that a column of a batch shows a text, where a batch mixes ``pairs`` and ``crops`` rows.

    Args:
        pair_logp: [N] ln of the share of the pairs that show the text.
        crop_logp: ln of the share of the crops that do.
        pairs: B of a batch.
        crops: C of a batch.

    Returns:
        [N] float64, ln((B e^pair_logp + C e^crop_logp) / (B + C)).
    """
    if not crops:
        return pair_logp.astype(np.float64)
    return np.log((pairs * np.exp(pair_logp.astype(np.float64)) + crops * np.exp(crop_logp)) / (pairs + crops))


def _counted(groups: Iterator[pa.Table], expected: int, who: str) -> Iterator[pa.Table]:
    """Row groups as they come.

    Raises:
        RuntimeError: at their end, if there were other rows than ``expected``.
    """
    read = 0
    for group in groups:
        read += len(group)
        yield group
    if read != expected:
        raise RuntimeError(f"{who}: read {read} rows, the manifest says {expected}")
