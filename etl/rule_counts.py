"""What each cleaning rule dropped, by day: whether nothing was lost or doubled, the rows of ETL_COUNTS, and totals."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence

from etl import cleaning
from etl.errors import InputError
from etl.pairs_config import PairsConfig

Counts = Mapping[tuple[dt.date, str | None], int]
"""Events by (partition day, first rule violated); None for those kept."""


def require_same(before: Counts, after: Counts, what: str) -> None:
    """Refuse to count what a join lost or doubled, or what changed while it was read.

    Raises:
        RuntimeError: on some day other acts came out of some rules than the rules before them had kept.
    """
    given = Counter({day: n for (day, rule), n in before.items() if rule is None})
    found: Counter[dt.date] = Counter()
    for (day, _), n in after.items():
        found[day] += n
    wrong = [f"{day}: {given[day]} in, {found[day]} out" for day in sorted(given | found) if given[day] != found[day]]
    if wrong:
        raise RuntimeError(
            f"click_log: acts were lost or doubled by the {what}, or the table changed while it was read "
            f"({'; '.join(wrong)}); nothing was written: run it again"
        )


def reconcile(counts: Counts) -> list[tuple[dt.date, int, str, int, int, int]]:
    """Rows of ETL_COUNTS without ds: (day, step, rule, rows in, dropped, kept) of every day and rule."""
    rows = []
    for day in sorted({day for day, _ in counts}):
        left = sum(count for (of, _), count in counts.items() if of == day)
        for step, rule in enumerate(cleaning.RULES, start=1):
            dropped = counts.get((day, rule), 0)
            rows.append((day, step, rule, left, dropped, left - dropped))
            left -= dropped
        assert left == counts.get((day, None), 0)
    return rows


def totals(rows: Sequence[tuple[dt.date, int, str, int, int, int]]) -> dict[str, int]:
    """Events in, dropped by each rule, and kept, over all days."""
    dropped = {rule: sum(row[4] for row in rows if row[2] == rule) for rule in cleaning.RULES}
    events = sum(row[3] for row in rows if row[1] == 1)
    return {"events": events} | dropped | {"kept": events - sum(dropped.values())}


def refuse_nothing(rows: Sequence[tuple[dt.date, int, str, int, int, int]], config: PairsConfig) -> None:
    """Refuse to go on without any event that is kept; ``rows`` as of :func:`reconcile`.

    Raises:
        InputError: none is; what each rule dropped is listed.
    """
    figures = totals(rows)
    if figures["kept"]:
        return
    dropped = [f"{rule} dropped {figures[rule]}: {why}" for rule, why in cleaning.RULES.items() if figures[rule]]
    window = f"{config.first_day} to {config.ds}"
    heading = f"pairs/ds={config.ds} would have 0 rows (expected >= 1): none of {figures['events']} events"
    raise InputError.of(dropped, heading=f"{heading} in click_log, {window}, is left; see [pairs] in warehouse.toml:")
