"""Titles encoded a CPU second by preset, and the share of it that is tokenising: what overlapping the two could win.

Untrained encoders on the same titles, Home Depot's or made-up ones, chunk by chunk in turn on one thread; medians. While
one chunk is encoded, a second thread could at best hide all tokenising of the next: "overlapped" is the wall time that
would then be left, and only where a core is idle; Spark has a worker on each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from rich.table import Table

from benchmarks.speed.pacing import interval
from benchmarks.speed.training_data import WORDHASH, home_depot, made_up, wordpiece
from etl.tokenizer import Tokenizer, WordHashTokenizer
from labeling.machine import hardware
from labeling.terminal import console
from model.encoder import Encoder
from model.fit import draw
from model.inference import embed
from model.packing import tokenised
from model.presets import PRESETS

WARM_UP = 1


@dataclass
class Measured:
    """One preset, and CPU seconds of each chunk."""

    encoder: Encoder
    tokenizer: Tokenizer
    tokenising: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def encode(self, titles: Sequence[str]) -> None:
        started = time.process_time()
        rows, table = tokenised(self.tokenizer, titles, "title")
        self.tokenising.append(time.process_time() - started)
        embed(self.encoder, rows, table)
        self.whole.append(time.process_time() - started)

    def share(self) -> float:
        """Of tokenising, by the medians."""
        return median(self.tokenising) / median(self.whole)


def measure(titles: Sequence[str], presets: dict[str, Measured], chunk: int) -> None:
    """Encode chunk after chunk by each preset in turn; the first ones are not counted."""
    for start in range(0, len(titles), chunk):
        for preset in presets.values():
            preset.encode(titles[start : start + chunk])
    for preset in presets.values():
        del preset.tokenising[:WARM_UP], preset.whole[:WARM_UP]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.encoding_presets", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--steps", type=int, default=5, help="measured chunks of each preset (default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=1_024, help="titles of a chunk (default: %(default)s)")
    parser.add_argument("--data", help="directory of Home Depot's data, for its titles (default: made-up ones)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    count = (args.steps + WARM_UP) * args.chunk
    pairs, pieces = made_up(count)
    if args.data:
        pairs = home_depot(args.data)
        pieces = wordpiece(pairs)
    tokenizers: dict[str, Tokenizer] = {"wordpiece": pieces, "wordhash": WordHashTokenizer(WORDHASH)}
    presets = {
        name: Measured(draw(PRESETS[name].encoder, 1).eval(), tokenizers[PRESETS[name].encoder.tokens])
        for name in ("published", "hybrid", "bag")
    }
    measure(pairs.titles[:count], presets, args.chunk)
    titles = f"chunks of {args.chunk:,} titles, {hardware()}"
    table = Table("preset", "titles a CPU s", "of published (95%)", "tokenising", "overlapped", title=titles)
    base = presets["published"].whole
    for name, found in presets.items():
        ratio, low, high = interval(base, found.whole)
        share = found.share()
        rate = f"{args.chunk / median(found.whole):,.0f}"
        table.add_row(name, rate, f"{ratio:.1f} ({low:.1f} to {high:.1f})", f"{share:.1%}", f"{max(share, 1 - share):.1%}")
    console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
