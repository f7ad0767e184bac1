from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from etl.dataset import decode_ids, load_token_table, verify
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from etl.tokenizer import load_tokenizer
from etl.warehouse import Warehouse
from labeling import mine_negatives
from labeling.mine_negatives import MineConfig
from model import train
from model.bundle import CHAMPION, load_bundle, set_alias, write_bundle
from model.encoder import Encoder
from model.hard_negatives import HardConfig
from model.inference import embed
from model.known import KnownPairs
from model.loss import NO_ITEM
from model.presets import EncoderConfig
from model.ranks import Ranks
from model.reader import ReaderConfig, TrainingReader
from model.train import can_mine
from model.train_config import TrainConfig
from tests.model_data import DS, small_shop, write_dataset

ROWS = 2**10
FIRST, LAST, SHARE = 3, 60, 0.9


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    """A warehouse with a dataset and an untrained champion, which ranks titles by the letters that they share."""
    root = tmp_path_factory.mktemp("mine")
    warehouse = Warehouse.at(str(root))
    dataset = warehouse.dataset(DS)
    write_dataset(dataset, small_shop(), rows=ROWS)
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(rows=ROWS, dim=32))
    path = write_bundle(
        warehouse.bundles, encoder, load_tokenizer(dataset), ds=DS, metrics={"heldout": {}}, lineage={"inputs": {}}
    )
    set_alias(warehouse, CHAMPION, path)
    return root


@pytest.fixture(scope="module")
def mined(spark, before, tmp_path_factory) -> Path:
    root = Path(shutil.copytree(before, tmp_path_factory.mktemp("mined") / "warehouse"))
    assert mine(root) == EXIT_OK
    return root


def mine(root: Path, *more: str) -> int:
    settings = {"--negatives": 3, "--first-rank": FIRST, "--last-rank": LAST, "--max-score-share": SHARE}
    flags = [str(word) for pair in settings.items() for word in pair]
    return mine_negatives.main(["--root", str(root), "--ds", str(DS), *flags, *more])


def pairs(root: Path) -> pa.Table:
    dataset = Warehouse.at(str(root)).dataset(DS)
    return pa.concat_tables(pq.read_table(dataset / file.path) for file in verify(dataset).files("pairs"))


def test_mining_leaves_a_verified_dataset_with_the_same_pairs_in_equal_files(before, mined):
    old, new = (pairs(root).sort_by("pair_id") for root in (before, mined))
    assert new.select(old.column_names).equals(old)
    manifest = verify(Warehouse.at(str(mined)).dataset(DS))
    assert manifest.hard_negatives == 3
    assert "of ranks 3-60 below 0.9" in manifest.inputs["hard_negatives"]
    sizes = [file.rows for file in manifest.files("pairs")]
    assert max(sizes) - min(sizes) <= 1


def test_a_hard_negative_ranks_high_scores_less_than_the_clicked_title_and_was_not_clicked(mined):
    dataset = Warehouse.at(str(mined)).dataset(DS)
    manifest, table, known = verify(dataset), load_token_table(dataset), KnownPairs.load(dataset, verify(dataset))
    bundle = load_bundle(next(Warehouse.at(str(mined)).bundles.glob("*/manifest.json")).parent)

    def vectors(texts: list[bytes]) -> np.ndarray:
        return embed(bundle.encoder, [decode_ids(text, manifest.token_dtype) for text in texts], table)

    titles = pa.concat_tables(pq.read_table(dataset / file.path) for file in manifest.files("titles"))
    corpus, rows = vectors(titles["title"].to_pylist()), pairs(mined).to_pylist()
    found = 0
    for row in rows:
        query, own = vectors([row["query"], row["title"]])
        for n in range(3):
            if not row[f"hard_title_{n}"]:
                continue  # the pair has none
            found += 1
            score = float(query @ vectors([row[f"hard_title_{n}"]])[0])
            assert score < SHARE * float(query @ own) + 1e-6
            better = int((corpus @ query > score + 1e-6).sum())
            assert better < LAST
            assert better + int((np.abs(corpus @ query - score) <= 1e-6).sum()) > FIRST
            assert not len(known.matches(np.array([row["query_group"]]), np.array([row[f"hard_group_{n}"]])))
    assert found > len(rows)


@pytest.mark.slow
def test_mining_again_at_another_partitioning_gives_the_same_rows(spark, mined, tmp_path):
    root = Path(shutil.copytree(mined, tmp_path / "warehouse"))
    first = pairs(root)
    before = spark.conf.get("spark.sql.files.maxPartitionBytes")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "4096")
    try:
        assert mine(root) == EXIT_OK
    finally:
        spark.conf.set("spark.sql.files.maxPartitionBytes", before)
    assert pairs(root).equals(first)


def test_a_dataset_of_another_tokenizer_than_the_bundle_is_refused_and_stays(before, tmp_path, capfd):
    root = Path(shutil.copytree(before, tmp_path / "warehouse"))
    dataset = Warehouse.at(str(root)).dataset(DS)
    shutil.rmtree(dataset)
    digest = write_dataset(dataset, small_shop(), rows=2 * ROWS).digest
    assert mine(root) == EXIT_BAD_INPUT
    assert "another tokenizer than bundle" in capfd.readouterr().err
    assert verify(dataset).digest == digest


def test_the_night_mines_only_where_training_wants_it_and_a_champion_can(before, tmp_path, caplog):
    root = Path(shutil.copytree(before, tmp_path / "warehouse"))
    dataset = Warehouse.at(str(root)).dataset(DS)
    caplog.set_level("INFO")
    wanted = MineConfig(root=str(root), ds=DS, if_wanted=True)
    assert mine_negatives.run(wanted) == {"hard_negatives": 0}
    assert "[train] hard_share is 0" in caplog.text
    (root / "warehouse.toml").write_text("[train]\nhard_share = 0.5\n", encoding="utf-8")
    champion = Warehouse.at(str(root)).bundles / "champion.json"
    champion.rename(champion.with_suffix(".away"))
    assert mine_negatives.run(wanted) == {"hard_negatives": 0}
    assert "no champion that has the dataset's tokenizer" in caplog.text
    assert not can_mine(Warehouse.at(str(root)), verify(dataset))
    champion.with_suffix(".away").rename(champion)
    assert can_mine(Warehouse.at(str(root)), verify(dataset))
    assert verify(dataset).hard_negatives == 0


def test_a_dataset_that_a_killed_job_took_out_of_its_place_is_back_before_it_is_mined(before, tmp_path):
    root = Path(shutil.copytree(before, tmp_path / "warehouse"))
    dataset = Warehouse.at(str(root)).dataset(DS)
    digest = verify(dataset).digest
    dataset.rename(dataset.with_name(f".{dataset.name}.old"))
    assert mine(root, "--if-wanted") == EXIT_OK  # it is not, but that is said of a dataset
    assert verify(dataset).digest == digest


def batches(root: Path, steps: int, **changes) -> list:
    dataset = Warehouse.at(str(root)).dataset(DS)
    config = TrainConfig(root=str(root), ds=DS, preset="tiny", **changes)
    chosen = config.chosen_preset(verify(dataset)).with_settings(batch=32, crops=1.0)
    return list(TrainingReader(dataset, verify(dataset), config.reader(chosen), Ranks()).batches(steps))


def test_batches_bring_their_share_of_hard_negatives_from_the_step_that_they_are_due(mined):
    found = batches(mined, 10, hard_share=0.25, hard_from=0.4, query_word_dropout=0.0)
    assert [0 if batch.hard is None else len(batch.hard) for batch in found] == [0] * 4 + [8] * 6
    assert [len(batch.texts) - 2 * len(batch.rows) for batch in found] == [0] * 4 + [8] * 6
    groups = {(row["query_group"], row[f"hard_group_{n}"]) for row in pairs(mined).to_pylist() for n in range(3)}
    asked = zip(found[9].rows.query_group[:8].tolist(), found[9].hard.tolist(), strict=True)
    assert {(query, item) for query, item in asked if item != NO_ITEM} <= groups


def test_a_pair_whose_title_lost_the_query_s_words_brings_no_hard_negative(mined):
    found = batches(mined, 6, hard_share=1.0, hard_from=0.0, query_word_dropout=1.0)
    whole = batches(mined, 6, hard_share=1.0, hard_from=0.0, query_word_dropout=0.0)
    none = [np.concatenate([batch.hard == NO_ITEM for batch in part]).mean() for part in (found, whole)]
    assert none[0] > none[1] + 0.3
    assert none[1] < 0.3


def test_a_small_batch_has_one_hard_negative_rather_than_none():
    assert HardConfig(share=0.1, start=0.0).rows(0, 10, batch=4) == 1
    assert HardConfig(share=0.0).rows(9, 10, batch=400) == 0


def test_another_epoch_draws_other_negatives_of_a_pair(mined):
    epoch = sum(file.rows for file in verify(Warehouse.at(str(mined)).dataset(DS)).files("pairs")) // 32
    found = batches(mined, 2 * epoch, hard_share=1.0, hard_from=0.0, query_word_dropout=0.0)
    drawn = [
        {
            (int(query), int(item), int(hard))
            for batch in part
            for query, item, hard in zip(batch.rows.query_group, batch.rows.item_group, batch.hard, strict=False)
        }
        for part in (found[:epoch], found[epoch:])
    ]
    assert len(drawn[0] - drawn[1]) > len(drawn[0]) / 4


def test_a_dataset_without_hard_negatives_is_refused_where_they_are_asked_for(before):
    with pytest.raises(InputError, match="no hard negatives: run `labeller mine --root ROOT --ds 2024-05-07`"):
        batches(before, 2, hard_share=0.5)


def test_a_training_that_asks_for_them_is_refused_before_it_is_launched(before, capfd):
    assert train.main(["--root", str(before), "--ds", str(DS), "--preset", "tiny", "--hard-share", "0.5"]) == EXIT_BAD_INPUT
    said = capfd.readouterr().err
    assert "no hard negatives: run `labeller mine --root ROOT --ds 2024-05-07`" in said
    assert "Traceback" not in said


def test_a_reader_that_goes_on_has_the_hard_negatives_of_an_uninterrupted_one(mined):
    dataset = Warehouse.at(str(mined)).dataset(DS)
    config = TrainConfig(root=str(mined), ds=DS, preset="tiny", hard_share=0.5, hard_from=0.2)
    settings: ReaderConfig = config.reader(config.chosen_preset(verify(dataset)).with_settings(batch=32, crops=1.0))
    reader = TrainingReader(dataset, verify(dataset), settings, Ranks())
    whole, rest = list(reader.batches(8)), list(reader.batches(8, reader.position(5)))
    for a, b in zip(whole[5:], rest, strict=True):
        assert np.array_equal(a.hard, b.hard)
        assert torch.equal(a.texts.features, b.texts.features)
