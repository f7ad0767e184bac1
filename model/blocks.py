"""Row groups gathered to blocks that are shuffled as one."""

# N rows of a block, T tokens in all its texts

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_ZERO = np.zeros(1, np.int64)


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts end to end."""

    ids: np.ndarray
    """[T] token ids."""
    offsets: np.ndarray
    """[N + 1] where each text begins, from 0."""

    def part(self, start: int, stop: int) -> Texts:
        """Texts ``start`` to ``stop``; nothing is copied."""
        offsets = self.offsets[start : stop + 1]
        return Texts(self.ids[offsets[0] : offsets[-1]], offsets - offsets[0])

    @classmethod
    def joined(cls, parts: Iterable[Texts]) -> Texts:
        ids, offsets, end = [], [_ZERO], 0
        for part in parts:
            ids.append(part.ids)
            offsets.append(part.offsets[1:] + end)
            end += len(part.ids)
        return cls(np.concatenate(ids), np.concatenate(offsets))


@dataclass(frozen=True, slots=True)
class Block:
    """N rows, by column."""

    numbers: dict[str, np.ndarray]
    """[N] each."""
    texts: dict[str, Texts]
    """N texts each."""

    def part(self, start: int, stop: int) -> Block:
        """Rows ``start`` to ``stop``; nothing is copied."""
        numbers = {name: values[start:stop] for name, values in self.numbers.items()}
        return Block(numbers, {name: texts.part(start, stop) for name, texts in self.texts.items()})


def blocks(
    groups: Iterable[pa.Table], *, batch: int, rows: int, skip: int, shuffle: Callable[[int], np.random.Generator]
) -> Iterator[pa.Table]:
    """Tables of ``rows`` rows or more in random order, each cut to whole batches.

    What does not fill a batch goes on to the next block in the order of the files, so that a block depends on none
    before it; of the last block a random rest is dropped.

    Args:
        groups: Row groups.
        batch: Rows of a batch.
        rows: Rows that are shuffled together, at least.
        skip: First batches that are left out; a block without batches is not even shuffled.
        shuffle: Generator of the n-th block's order.
    """
    held: list[pa.Table] = []
    count = number = 0
    for group in groups:
        held.append(group)
        count += len(group)
        if count < max(rows, batch):
            continue
        table, full = pa.concat_tables(held), count - count % batch
        yield from _shuffled(table.slice(0, full), batch, skip, shuffle, number)
        held, count, skip, number = [table.slice(full)], count - full, max(0, skip - full // batch), number + 1
    if count >= batch:
        yield from _shuffled(pa.concat_tables(held), batch, skip, shuffle, number)


def _shuffled(
    table: pa.Table, batch: int, skip: int, shuffle: Callable[[int], np.random.Generator], number: int
) -> Iterator[pa.Table]:
    batches = len(table) // batch
    if skip >= batches:
        return
    order = shuffle(number).permutation(len(table))[skip * batch : batches * batch]
    # All rows at once and in Arrow, which gathers texts in two thirds of numpy's time. Those of a block may have more bytes
    # than 32-bit offsets count.
    large = [field.with_type(pa.large_binary()) if pa.types.is_binary(field.type) else field for field in table.schema]
    yield table.cast(pa.schema(large)).combine_chunks().take(pa.array(order))


def decode(table: pa.Table, token_dtype: str) -> Block:
    """A block's columns for numpy: binary ones as texts, the others as they are."""
    numbers, texts = {}, {}
    for field in table.schema:
        if pa.types.is_large_binary(field.type):
            texts[field.name] = _texts(table[field.name], token_dtype)
        else:
            numbers[field.name] = table[field.name].to_numpy()
    return Block(numbers, texts)


def _texts(column: pa.ChunkedArray, token_dtype: str) -> Texts:
    """Straight from Arrow's buffers: no object is made of a text."""
    kind = np.dtype(token_dtype).newbyteorder("<")
    ids, lengths = [np.empty(0, kind)], [np.empty(0, np.int64)]
    for chunk in column.chunks:
        _, starts, values = chunk.buffers()
        offsets = np.frombuffer(starts, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        if values is not None:
            ids.append(np.frombuffer(values, np.uint8)[offsets[0] : offsets[-1]].view(kind))
        lengths.append(np.diff(offsets) // kind.itemsize)
    return Texts(np.concatenate(ids), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))
