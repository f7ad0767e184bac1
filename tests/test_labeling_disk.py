"""A night on a disk that fills before it publishes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from etl.errors import EXIT_OK, EXIT_TRY_LATER
from labeling import audit, embed_catalogue, predict, publish
from tests.small_disk import mounted
from tests.small_night import NEXT, TOMORROW, argv, live


@pytest.mark.slow
@pytest.mark.fault("disk-full")
@pytest.mark.parametrize("leaving", [0, 1 << 14])
def test_what_was_live_stays_live_until_there_is_room_for_the_day(
    spark: SparkSession, first_night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], leaving: int
) -> None:
    with mounted(tmp_path / "disk", 128) as disk:
        root = Path(shutil.copytree(first_night, disk.path / "warehouse"))
        assert [job.main(argv(root, NEXT)) for job in (embed_catalogue, predict, audit)] == [EXIT_OK] * 3
        before = live(root)
        disk.fill(leaving)
        assert publish.main(argv(root, NEXT)) == EXIT_TRY_LATER
        said = capsys.readouterr().err
        assert "labeller publish: error: a disk or quota is full (" in said
        assert "Traceback" not in said
        assert live(root) == before
        disk.free()
        assert publish.main(argv(root, NEXT)) == EXIT_OK
        assert set(live(root)) == set(TOMORROW)
        assert {row["ds"] for row in live(root).values()} != {row["ds"] for row in before.values()}
