import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from etl.dataset import DataFile, Manifest, load_token_table
from etl.errors import InputError
from model.augment import crop, uniform
from model.blocks import blocks
from model.ranks import Ranks
from model.reader import ReaderConfig, TrainingReader, column_logp
from model.shares import fit_batch, rank_files, smallest_share
from tests.model_data import small_shop, write_dataset

CONFIG = ReaderConfig(batch=10, crops=0.5, seed=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    directory = tmp_path_factory.mktemp("dataset") / "ds=2024-05-07"
    return directory, write_dataset(directory, small_shop())


def reader(dataset, ranks=None, **changes) -> TrainingReader:
    return TrainingReader(*dataset, replace(CONFIG, **changes), ranks or Ranks())


def pairs_of(batches) -> list[tuple[int, int]]:
    return [pair for b in batches for pair in zip(b.rows.query_group.tolist(), b.rows.item_group.tolist(), strict=True)]


def texts(batch) -> list[tuple[int, ...]]:
    tokens = batch.texts.tokens.tolist()
    bags = [tuple(x) for x in np.split(batch.texts.features.numpy(), batch.texts.feature_offsets[1:-1].numpy())]
    return [tuple(bags[t] for t in tokens[a:b]) for a, b in zip(batch.texts.offsets, batch.texts.offsets[1:], strict=False)]


def test_an_epoch_holds_every_pair_at_most_once_and_almost_all(dataset):
    made = reader(dataset, crops=0.0)
    pairs = pairs_of(made.batches(made.steps_per_epoch))
    assert len(set(pairs)) == len(pairs) == 10 * made.steps_per_epoch
    assert set(pairs) <= set(small_shop().clicks)
    assert len(small_shop().clicks) - len(pairs) < 10


@pytest.mark.fault("uneven-shards")
def test_two_ranks_read_different_pairs_in_equally_many_steps(dataset):
    both = [reader(dataset, Ranks(rank, 2), crops=0.0) for rank in (0, 1)]
    assert both[0].steps_per_epoch == both[1].steps_per_epoch
    first, second = ([*r.batches(r.steps_per_epoch)] for r in both)
    assert len(first) == len(second) == both[0].steps_per_epoch
    assert not set(pairs_of(first)) & set(pairs_of(second))


def test_batches_repeat_for_a_seed_and_change_with_the_epoch(dataset):
    made = reader(dataset)
    once, again = ([(pairs_of([b]), texts(b)) for b in reader(dataset).batches(made.steps_per_epoch + 2)] for _ in range(2))
    assert once == again
    assert once[0] != once[made.steps_per_epoch]
    assert once[0] != next((pairs_of([b]), texts(b)) for b in reader(dataset, seed=4).batches(1))


def test_crops_stand_beside_their_title_under_a_query_group_of_their_own(dataset):
    batches = [next(reader(dataset, Ranks(rank, 2), query_word_dropout=0.0).batches(1)) for rank in (0, 1)]
    groups = [i for b in batches for i in b.rows.query_group[10:].tolist()]
    assert len(groups) == len(set(groups)) == 10
    assert max(groups) < min(small_shop().queries)
    for batch in batches:
        assert len(batch.texts) == 2 * len(batch.rows) == 30
        found = texts(batch)
        for cropped, title in zip(found[10:15], found[25:30], strict=True):
            assert 1 <= len(cropped) <= 5
            assert set(cropped) <= set(title)


def test_query_word_dropout_takes_the_cut_title_where_there_is_one(dataset):
    table = load_token_table(dataset[0])
    plain, cut = (next(reader(dataset, query_word_dropout=p).batches(1)) for p in (0.0, 1.0))
    shop = small_shop()
    assert pairs_of([plain]) == pairs_of([cut])
    for (query_group, item), before, after in zip(
        pairs_of([plain])[:10], texts(plain)[15:25], texts(cut)[15:25], strict=True
    ):
        words = shop.queries[query_group].split()
        assert len(after) < len(before) if set(words) & set(shop.titles[item].split()) else after == before
    assert len(table.ids)


@pytest.mark.fault("uneven-shards")
def test_fewer_rows_than_the_manifest_says_is_an_error(dataset):
    directory, manifest = dataset
    more = [replace(file, rows=file.rows + (n == 1)) for n, file in enumerate(manifest.parts["pairs"])]
    wrong = replace(manifest, parts={**manifest.parts, "pairs": tuple(more)})
    made = TrainingReader(directory, wrong, CONFIG, Ranks())
    with pytest.raises(RuntimeError, match=r"pairs, epoch 0, rank 0 of 1: read 301 rows, the manifest says 302"):
        list(made.batches(made.steps_per_epoch + 1))


def test_a_column_s_probability_is_how_often_batches_show_its_text(tmp_path):
    # 300 pairs in 10 batches of 30, beside one pass over 160 titles as 16 crops a batch: every row exactly once.
    data = (tmp_path, write_dataset(tmp_path, small_shop(clicks=300)))
    made = reader(data, batch=30, crops=16 / 30, query_word_dropout=0.0)
    rows = [batch.rows for batch in made.batches(10)]
    titles, queries = (Counter(k for r in rows for k in getattr(r, name).tolist()) for name in ("item_group", "query_group"))
    for r in rows:
        for key, logp in zip(r.item_group.tolist(), r.item_logp, strict=True):
            assert np.exp(logp) == pytest.approx(titles[key] / 460, rel=1e-5)
        for key, logp in zip(r.query_group[:30].tolist(), r.query_logp, strict=False):
            assert np.exp(logp) == pytest.approx(queries[key] / 460, rel=1e-5)
        assert np.exp(r.query_logp[30:]) == pytest.approx(1 / 460)


def test_without_crops_a_column_s_probability_is_its_share_of_the_pairs():
    assert column_logp(np.log([0.2, 0.5]), -np.inf, 8, 0) == pytest.approx(np.log([0.2, 0.5]))


def contents(batches) -> list:
    return [(pairs_of([b]), texts(b), b.rows.item_logp.tolist()) for b in batches]


@pytest.mark.parametrize("step", [3, 30, 47])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_resumed_run_has_the_batches_of_an_uninterrupted_one(dataset, rank, step):
    # 15 batches an epoch and 16 a pass over the titles, in blocks of 70 rows: within, at and beyond their ends
    made = reader(dataset, Ranks(rank, 2), shuffle_rows=70)
    assert made.steps_per_epoch == 15
    again = reader(dataset, Ranks(rank, 2), shuffle_rows=70)
    assert contents(again.batches(50, start=made.position(step))) == contents(made.batches(50))[step:]


def test_blocks_that_are_skipped_are_not_even_shuffled():
    shuffled = []

    def shuffle(number):
        shuffled.append(number)
        return np.random.default_rng(number)

    groups = [pa.table({"n": np.arange(8 * n, 8 * n + 8)}) for n in range(5)]
    whole, rest = ([*blocks(iter(groups), batch=3, rows=10, skip=skip, shuffle=shuffle)] for skip in (0, 6))
    assert shuffled == [0, 1, 2, 1, 2]
    assert [len(table) for table in whole] == [15, 15, 9]
    rows = [[row for table in found for row in table["n"].to_pylist()] for found in (whole, rest)]
    assert sorted(rows[0][:30]) == list(range(30))
    assert rows[0][6 * 3 :] == rows[1]


def test_a_position_of_other_data_ranks_or_settings_is_refused_with_all_differences(dataset, tmp_path):
    other = (tmp_path, write_dataset(tmp_path, small_shop(seed=1)))
    position = reader(dataset, batch=9, seed=7).position(5)
    with pytest.raises(InputError) as caught:
        reader(other, Ranks(0, 2)).batches(10, start=position)
    for part in ("from step 5", "batch is 10, the position was saved with 9", "dataset is", "ranks is 2", "seed is 3"):
        assert part in str(caught.value)
    loading = reader(dataset, read_ahead=9, reader_timeout_s=1.0)
    assert len(list(loading.batches(6, start=reader(dataset).position(5)))) == 1


def uneven(*rows: int) -> Manifest:
    files = tuple(DataFile(path=f"pairs/{n}.parquet", rows=r, size=1, sha256="") for n, r in enumerate(rows))
    spec = {"kind": "wordhash"}
    return Manifest(
        ds=None, token_dtype="int64", tokenizer="", normaliser="", spec=spec, inputs={}, parts={"pairs": files}, schema={}
    )


@pytest.mark.fault("uneven-shards")
def test_the_rank_with_the_fewest_rows_sets_the_pace():
    assert smallest_share(uneven(100, 60, 100, 50), "pairs", 2) == 110
    assert [f.rows for f in rank_files(uneven(100, 60, 0, 50), "pairs", Ranks(1, 2))] == [60]


@pytest.mark.fault("uneven-shards")
def test_fewer_files_than_ranks_are_refused():
    with pytest.raises(InputError, match=r"pairs/ has 1 files with rows in them for 2 ranks.*--ranks 2"):
        rank_files(uneven(100, 0), "pairs", Ranks(0, 2))


def test_a_batch_shrinks_where_there_are_few_pairs(caplog):
    with caplog.at_level(logging.INFO):
        assert fit_batch(uneven(400, 400), 512, 2) == 50
    assert "batch 50 instead of 512" in caplog.text
    assert fit_batch(uneven(10_000, 10_000), 512, 2) == 512


def test_draws_are_uniform_and_depend_on_seed_epoch_row_and_use():
    rows = np.arange(-10_000, 10_000)
    draw = uniform(1, 0, rows, 0)
    assert 0 <= draw.min() < draw.max() < 1
    assert abs(draw.mean() - 0.5) < 0.01
    for other in (uniform(2, 0, rows, 0), uniform(1, 1, rows, 0), uniform(1, 0, rows, 1)):
        assert abs(np.corrcoef(draw, other)[0, 1]) < 0.03
    assert (draw[5:9] == uniform(1, 0, rows[5:9], 0)).all()


@pytest.mark.parametrize("style", ["span", "subset", "mix"])
@pytest.mark.parametrize("special", [0, 1])
def test_a_crop_is_a_part_of_its_text_in_order(style, special):
    lengths = np.array([3, 9, 2 + special, 6])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(offsets[-1])
    seen = set()
    for epoch in range(20):
        part, at = crop(ids, offsets, np.arange(4), seed=1, epoch=epoch, style=style, longest=3, special=special)
        for n in range(4):
            text, cropped = ids[offsets[n] : offsets[n + 1]], part[at[n] : at[n + 1]]
            assert 1 <= len(cropped) - 2 * special <= 3
            assert (np.diff(cropped) > 0).all()
            assert set(cropped) <= set(text)
            if special:
                assert (cropped[0], cropped[-1]) == (text[0], text[-1])
            if style == "span" and not special:
                assert (np.diff(cropped) == 1).all()
        seen.add(tuple(part))
    assert len(seen) > 10
