from __future__ import annotations

import datetime as dt
import json
import shutil
import string
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from petastorm import make_batch_reader
from pyspark.sql import Window
from pyspark.sql import functions as F

from etl import build_dataset
from etl.contracts import PAIRS, RUNS, TITLE_GROUPS
from etl.dataset import Manifest, decode_ids, encode_ids, load_token_table, verify
from etl.dataset_config import DatasetConfig
from etl.dataset_rows import as_token_table, refuse_collisions
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from etl.petastorm_write import file_of, in_files, write_petastorm
from etl.tables import write_slice
from etl.text import cut_words, join, language_of, normalise, words
from etl.tokenize_texts import cut_title
from etl.tokenizer import load_tokenizer, token_id
from etl.typos import misspelt
from etl.warehouse import Warehouse
from tests.delta_data import lay, run_row
from tests.etl_data import QUERIES, items
from tests.model_data import small_shop, write_dataset
from tests.rows import CATALOGUE, DS, lay_down

TITLES = {row["item_id"]: row["title"] for row in items() if row["item_id"] not in ("null", "empty", "page")}
HELDOUT = {QUERIES[3]: "valid", QUERIES[5]: "test"}
HELDOUT_ITEM, NEAR_IT, THINNED = "i7", "i8", "i9"
SPLITS = {HELDOUT_ITEM: "item", NEAR_IT: "unused"}
TRAINED = len(QUERIES) - len(HELDOUT) - 3 + 8  # a pair for each query with its own item, and eight with the one of three


def lay_down_pairs(spark, root: Path) -> None:
    """PAIRS and TITLE_GROUPS of the shop without the job that makes them: a query, its item, and three of one title."""
    rows = []
    for n, query in enumerate(QUERIES):
        for item_id in (f"i{n}", *(("same0", "same1", "same2") if n < 10 else ())):
            split = HELDOUT.get(query) or SPLITS.get(item_id, "train")
            rows.append((query, item_id, TITLES[item_id], 2.0 + n, -1.0 - n, split))
    frame = spark.createDataFrame(rows, "query string, item_id string, title string, weight double, p double, split string")
    columns = {
        "ds": F.lit(DS),
        "query_id": F.xxhash64("query"),
        "query_group": F.xxhash64(F.reverse("query")),
        "title_id": title_id("title"),
        "item_group": title_id("title"),
        "clicks": F.lit(12).cast("bigint"),
        "users": F.lit(12).cast("bigint"),
        "first_day": F.lit(DS),
        "sampled": (F.col("split") == "train") & (F.col("item_id") != THINNED),
        "query_logp": F.col("p"),
        "item_logp": F.col("p"),
    }
    write_slice(frame.withColumns(columns), str(root / "pairs"), PAIRS, {"ds": DS})
    near = spark.createDataFrame([(TITLES[i],) for i in SPLITS], "title string").select(title_id("title").alias("title_id"))
    groups = near.select(F.lit(DS).alias("ds"), "title_id", F.min("title_id").over(Window.partitionBy()).alias("item_group"))
    write_slice(groups.withColumn("heldout", F.lit(True)), str(root / "title_groups"), TITLE_GROUPS, {"ds": DS})


def title_id(column: str):
    return F.xxhash64(F.lower(F.regexp_replace(column, " +", " ")))


def config(root: Path, **changes) -> DatasetConfig:
    return DatasetConfig(**{"root": str(root), "ds": DS, "master": "local[2]", "ranks": 2, "files_per_rank": 2} | changes)


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory) -> Path:
    """The shop with pairs and dataset."""
    root = tmp_path_factory.mktemp("shop") / "warehouse"
    root.mkdir()
    lay_down(spark, root, CATALOGUE, items())
    lay_down_pairs(spark, root)
    build_dataset.run(config(root))
    return root


@pytest.fixture(scope="module")
def directory(shop) -> Path:
    return shop / "datasets" / f"ds={DS}"


@pytest.fixture(scope="module")
def manifest(directory) -> Manifest:
    return verify(directory)


def read_part(directory: Path, manifest: Manifest, part: str) -> list[dict]:
    """Rows as training reads them: Petastorm's batch reader over the files of the manifest."""
    urls = [f"file://{directory / file.path}" for file in manifest.files(part)]
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        with make_batch_reader(urls, reader_pool_type="dummy", num_epochs=1, shuffle_row_groups=False) as reader:
            for batch in reader:
                columns = batch._asdict()
                rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return rows


def group_ids(spark) -> dict[str, int]:
    """xxhash64 of each text, and of the queries the groups that :func:`lay_down_pairs` gives them."""
    texts = sorted({normalise(t) for t in TITLES.values()} | set(QUERIES))
    frame = spark.createDataFrame([(t,) for t in texts], "text string").select("text", F.xxhash64("text").alias("id"))
    return {row["text"]: row["id"] for row in frame.collect()}


def query_groups(spark) -> dict[int, str]:
    frame = spark.createDataFrame([(t,) for t in QUERIES], "text string")
    return {row["id"]: row["text"] for row in frame.select("text", F.xxhash64(F.reverse("text")).alias("id")).collect()}


def test_settings_and_counts_of_the_pairs_are_those_of_the_day_s_run(spark, tmp_path):
    assert build_dataset.cleaning_of(spark, Warehouse(tmp_path), DS) == {}
    told = {"settings": '{"min_users": 2}', "counts": '{"personal_data": 7}'}
    lay(tmp_path / "runs", RUNS, [run_row("pairs", **told), run_row("pairs", DS + dt.timedelta(days=1)), run_row("audit")])
    found = build_dataset.cleaning_of(spark, Warehouse(tmp_path), DS)
    assert found == {"settings": {"min_users": 2}, "counts": {"personal_data": 7}}


def test_petastorm_reads_as_many_rows_as_the_manifest_says(directory, manifest):
    assert manifest.rows("pairs") == len(read_part(directory, manifest, "pairs")) == TRAINED
    assert manifest.rows("titles") == len(read_part(directory, manifest, "titles")) == len(QUERIES) + 1 - len(SPLITS)


def test_the_bytes_decode_to_the_tokens_of_the_texts(spark, directory, manifest):
    tokenizer, ids = load_tokenizer(directory), group_ids(spark)
    texts, queries = {number: text for text, number in ids.items()}, query_groups(spark)
    for row in read_part(directory, manifest, "pairs"):
        query, title = queries[row["query_group"]], texts[row["item_group"]]
        for column, text in (("query", query), ("title", title)):
            assert decode_ids(row[column], manifest.token_dtype).tolist() == tokenizer.ids(text, column).tolist()
        cut = cut_words(title, query)
        expected = tokenizer.ids(cut, "title").tolist() if cut != join(words(title)) else []
        assert decode_ids(row["title_cut"], manifest.token_dtype).tolist() == expected


def test_the_words_of_the_query_are_cut_where_the_title_has_them(directory, manifest):
    # The item of "red mug" is called "Acme mug No 14"; those called "Acme Zoom" have no word of any query.
    sizes = [len(row["title_cut"]) for row in read_part(directory, manifest, "pairs")]
    assert (min(sizes), sizes.count(0)) == (0, 8)


@pytest.mark.parametrize(
    ("query", "title", "cut"),
    [
        ("red mugs", "Acme Mug, red!", "acme"),
        ("mug", "Acme kettle", None),
        ("mug", "MUG", None),
        ("红色跑鞋", "新款跑鞋 39", "新 款 39"),
    ],
)
def test_a_cut_title_is_empty_if_nothing_is_cut_or_nothing_is_left(query, title, cut):
    assert cut_title(query, title, normalise) == cut


def test_pairs_of_one_query_with_equal_titles_are_one_row_with_the_sum_of_their_weights(spark, directory, manifest):
    ids = group_ids(spark)
    rows = [r for r in read_part(directory, manifest, "pairs") if r["item_group"] == ids["acme zoom"]]
    queries = query_groups(spark)
    weights = {queries[row["query_group"]]: row["weight"] for row in rows}
    assert weights[QUERIES[0]] == 6.0
    assert len(rows) == len(weights) == 8


def test_no_held_out_query_is_among_the_pairs_to_train_on(spark, directory, manifest):
    ids = group_ids(spark)
    heldout = pl.read_parquet(directory / "heldout" / "*.parquet").to_dicts()
    expected = {(split, ids[query]) for query, split in HELDOUT.items()} | {("item", ids[QUERIES[7]])}
    assert {(row["split"], row["query_id"]) for row in heldout} == expected
    assert all(len(row["title_ids"]) == (1 if row["split"] == "item" else 2) for row in heldout)
    queries = query_groups(spark)
    assert not set(HELDOUT) & {queries[r["query_group"]] for r in read_part(directory, manifest, "pairs")}


def test_a_held_out_query_comes_with_its_language_band_and_the_tokens_of_its_typos(spark, directory, manifest):
    tokenizer, texts = load_tokenizer(directory), {number: text for text, number in group_ids(spark).items()}
    for row in pl.read_parquet(directory / "heldout" / "*.parquet").to_dicts():
        query = texts[row["query_id"]]
        expected = tokenizer.ids(misspelt(query), "query").tolist()
        assert decode_ids(row["query_typos"], manifest.token_dtype).tolist() == expected
        assert row["query_typos"] != row["query"]
        assert (row["language"], row["frequency"]) == (language_of(query), "head")
    trained = [query for query in QUERIES if query not in HELDOUT]
    assert manifest.languages == Counter(map(language_of, trained))


def test_no_held_out_title_and_none_near_it_is_among_pairs_and_crops(spark, directory, manifest):
    ids = group_ids(spark)
    kept_out = {ids[normalise(TITLES[item_id])] for item_id in SPLITS}
    assert {row["title_id"] for row in pl.read_parquet(directory / "corpus" / "*.parquet").to_dicts()} == kept_out
    tokens = {row["title"] for row in pl.read_parquet(directory / "corpus" / "*.parquet").to_dicts()}
    for part in ("pairs", "titles"):
        rows = read_part(directory, manifest, part)
        assert not kept_out & {row["item_group"] for row in rows}
        assert not tokens & {row["title"] for row in rows}


def test_a_thinned_pair_is_not_drawn_but_stays_known(spark, directory, manifest):
    ids, queries = group_ids(spark), query_groups(spark)
    thinned = (QUERIES[9], ids[normalise(TITLES[THINNED])])
    known = {
        (queries[r["query_group"]], r["item_group"]) for r in pl.read_parquet(directory / "known" / "*.parquet").to_dicts()
    }
    drawn = {(queries[r["query_group"]], r["item_group"]) for r in read_part(directory, manifest, "pairs")}
    assert known - drawn == {thinned}
    assert drawn < known
    logp = {row["title_id"]: row["item_logp"] for row in read_part(directory, manifest, "titles")}
    assert logp[thinned[1]] == -np.inf
    assert logp[ids[normalise(TITLES["i0"])]] == -1.0


def test_the_token_table_has_the_features_of_every_token_also_of_cut_titles(directory, manifest):
    table, tokenizer = load_token_table(directory), load_tokenizer(directory)
    rows = read_part(directory, manifest, "pairs") + read_part(directory, manifest, "titles")
    values = [row[column] for row in rows for column in ("query", "title", "title_cut") if column in row]
    heldout = pl.read_parquet(directory / "heldout" / "*.parquet")
    values += heldout["query"].to_list() + heldout["query_typos"].to_list()
    values += pl.read_parquet(directory / "corpus" / "*.parquet")["title"].to_list()
    asked = [query.encode() for query in QUERIES if query not in HELDOUT]
    values += [encode_ids(tokenizer.ids(query.decode(), "query"), manifest.token_dtype) for query in asked]
    used = np.unique(decode_ids(b"".join(values), manifest.token_dtype))
    assert np.all(np.diff(table.ids) > 0)
    assert table.ids.tolist() == used.tolist()
    place = int(np.searchsorted(table.ids, token_id("kettle")))
    found = table.features[table.offsets[place] : table.offsets[place + 1]].tolist()
    assert found == tokenizer.features("kettle")


def test_files_are_equal_in_rows_and_named_without_chance(manifest):
    for part in ("pairs", "titles"):
        rows = [file.rows for file in manifest.files(part)]
        assert len(rows) == 4
        assert max(rows) - min(rows) <= 1
    assert manifest.files("pairs")[3].path == "pairs/part-00003.parquet"


def test_a_rebuild_gives_the_same_bytes_at_any_number_of_partitions(shop, directory, manifest, spark):
    before = {key: spark.conf.get(key) for key in ("spark.sql.shuffle.partitions", "spark.sql.adaptive.enabled")}
    try:
        spark.conf.set("spark.sql.shuffle.partitions", "5")
        spark.conf.set("spark.sql.adaptive.enabled", "false")
        command = ["--root", str(shop), "--ds", str(DS), "--ranks", "2", "--files-per-rank", "2", "--master", "local[2]"]
        assert build_dataset.main(command) == EXIT_OK
    finally:
        for key, value in before.items():
            spark.conf.set(key, value)
    assert verify(directory) == manifest
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


@pytest.mark.slow
def test_wordpiece_ids_are_half_as_wide_and_need_no_token_table(spark, shop, tmp_path):
    for table in ("catalogue", "pairs", "title_groups"):
        shutil.copytree(shop / table, tmp_path / table)
    build_dataset.run(config(tmp_path, tokenizer="wordpiece", rows=300))
    directory = tmp_path / "datasets" / f"ds={DS}"
    manifest = verify(directory)
    assert (manifest.token_dtype, manifest.files("tokens")) == ("uint32", ())
    tokenizer, ids = load_tokenizer(directory), group_ids(spark)
    titles = {row["title_id"]: row["title"] for row in read_part(directory, manifest, "titles")}
    for text in (normalise(title) for item_id, title in TITLES.items() if item_id not in SPLITS):
        assert decode_ids(titles[ids[text]], "uint32").tolist() == tokenizer.ids(text, "title").tolist()


@pytest.mark.slow
def test_pieces_with_their_words_n_grams_have_a_token_table_that_lacks_none(spark, shop, tmp_path):
    for table in ("catalogue", "pairs", "title_groups"):
        shutil.copytree(shop / table, tmp_path / table)
    build_dataset.run(config(tmp_path, tokenizer="both", pieces=300, rows=2_000))
    directory = tmp_path / "datasets" / f"ds={DS}"
    manifest, tokenizer, ids = verify(directory), load_tokenizer(directory), group_ids(spark)
    table = load_token_table(directory)
    titles = {row["title_id"]: row["title"] for row in read_part(directory, manifest, "titles")}
    for text in (normalise(title) for item_id, title in TITLES.items() if item_id not in SPLITS):
        assert decode_ids(titles[ids[text]], "int64").tolist() == tokenizer.ids(text, "title").tolist()
        for token in tokenizer.tokens(text, "title"):
            place = int(np.searchsorted(table.ids, token_id(token)))
            found = table.features[table.offsets[place] : table.offsets[place + 1]].tolist()
            assert found == tokenizer.features(token)
    assert table.features.max() >= 300


def test_pieces_that_leave_no_row_to_the_n_grams_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"pieces = 500 leaves none of rows = 500 to the hashed n-grams: raise rows"):
        config(tmp_path, tokenizer="both", pieces=500, rows=500)


def test_a_dataset_without_pairs_is_refused_and_says_what_to_run(spark, shop, tmp_path, capsys):
    lay_down(spark, tmp_path, CATALOGUE, items())
    command = ["--root", str(tmp_path), "--ds", str(DS), "--master", "local[2]"]
    assert build_dataset.main(command) == EXIT_BAD_INPUT
    assert "table pairs is not at" in capsys.readouterr().err
    shutil.copytree(shop / "pairs", tmp_path / "pairs")
    with pytest.raises(InputError, match="pairs/ds=2024-05-06 has 0 rows of the split train"):
        build_dataset.run(config(tmp_path, ds="2024-05-06"))
    assert not (tmp_path / "datasets").exists()


def test_a_catalogue_that_changed_since_is_refused_and_the_old_dataset_stays(spark, shop, tmp_path):
    for table in ("pairs", "title_groups"):
        shutil.copytree(shop / table, tmp_path / table)
    lay_down(spark, tmp_path, CATALOGUE, [row | {"title": f"New {row['item_id']}"} for row in items()[:20]])
    old = tmp_path / "datasets" / f"ds={DS}" / "manifest.json"
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps({"old": True}))
    with pytest.raises(
        InputError,
        match=r"the catalogue or \[text\] of warehouse.toml changed since; run `labeller pairs --ds 2024-05-07` again",
    ):
        build_dataset.run(config(tmp_path))
    assert json.loads(old.read_text()) == {"old": True}


def test_fewer_rows_than_files_make_fewer_files_and_none_an_empty_one(spark, tmp_path):
    frame = spark.createDataFrame([(n, bytes([n])) for n in range(3)], "item_group bigint, title binary")
    write_petastorm(frame, tmp_path / "titles", keys=["item_group"], files=8, row_group_mb=1)
    assert sum(pl.read_parquet(p).height for p in (tmp_path / "titles").glob("*.parquet")) == 3
    assert in_files(frame.limit(0), ["item_group"], 1).count() == 0


def test_no_row_group_is_larger_than_the_bound(spark, tmp_path):
    rng = np.random.default_rng(1)
    frame = spark.createDataFrame([(n, rng.bytes(1024)) for n in range(5_000)], "item_group bigint, title binary")
    write_petastorm(frame, tmp_path / "titles", keys=["item_group"], files=1, row_group_mb=1)
    metadata = pq.ParquetFile(tmp_path / "titles" / "part-00000.parquet").metadata
    sizes = [metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)]
    assert len(sizes) == 5
    assert max(sizes) <= 1.02 * 2**20  # pages that are being filled are not counted until they are full


def test_a_failed_write_leaves_no_hadoop_setting_behind(spark, tmp_path):
    settings = spark.sparkContext._jsc.hadoopConfiguration()
    before = settings.get("parquet.block.size.row.check.min"), settings.get("parquet.block.size")
    (tmp_path / "titles").mkdir()
    frame = spark.createDataFrame([(1, b"x")], "item_group bigint, title binary")
    with pytest.raises(Exception, match="PATH_ALREADY_EXISTS"):
        write_petastorm(frame, tmp_path / "titles", keys=["item_group"], files=1, row_group_mb=1)
    assert (settings.get("parquet.block.size.row.check.min"), settings.get("parquet.block.size")) == before


def test_two_words_that_share_a_token_id_are_refused_and_a_repeated_word_is_not(spark):
    rows = [(1, b"a"), (1, b"a"), (2, b"b")]
    refuse_collisions(as_token_table(spark.createDataFrame(rows, "id bigint, features binary")))
    clash = spark.createDataFrame([*rows, (2, b"c")], "id bigint, features binary")
    with pytest.raises(InputError, match="share the 64-bit token id 2"):
        refuse_collisions(as_token_table(clash))


@pytest.mark.slow
def test_the_tokenizer_of_a_bert_or_a_bundle_is_taken_over_whole(shop, directory, tmp_path):
    for table in ("catalogue", "pairs", "title_groups"):
        shutil.copytree(shop / table, tmp_path / table)
    (tmp_path / "bert").mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase)]
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(pieces))
    build_dataset.run(config(tmp_path, tokenizer_from=str(tmp_path / "bert"), rows=300))
    first = verify(tmp_path / "datasets" / f"ds={DS}")
    bundle = tmp_path / "bundles" / "abc"
    shutil.copytree(tmp_path / "datasets" / f"ds={DS}", bundle)
    (bundle / "manifest.json").write_text(json.dumps({"id": "abc"}))
    (bundle.parent / "champion.json").write_text(json.dumps({"bundle": "abc"}))
    build_dataset.run(config(tmp_path, tokenizer_from="champion", rows=5_000))
    again = verify(tmp_path / "datasets" / f"ds={DS}")
    assert (first.spec["kind"], first.spec["rows"]) == ("wordpiece", 56)
    assert (again.tokenizer, again.spec, again.token_dtype) == (first.tokenizer, first.spec, "uint32")
    assert again.parts["pairs"] == first.parts["pairs"]


def test_a_tokenizer_that_is_not_there_is_refused_before_the_tables_are_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"holds no tokenizer: expected tokenizer_spec.json \(a bundle or a dataset\), or"):
        build_dataset.run(config(tmp_path, tokenizer_from=str(tmp_path)))
    with pytest.raises(InputError, match=r"there is no directory .*/nowhere to take a tokenizer from"):
        build_dataset.run(config(tmp_path, tokenizer_from=str(tmp_path / "nowhere")))


def test_the_champion_s_tokenizer_is_made_anew_until_there_is_a_champion(tmp_path):
    found = build_dataset.known_tokenizer(config(tmp_path, tokenizer_from="champion", rows=512))
    assert (found.spec.kind, found.spec.rows) == ("wordhash", 512)
    assert build_dataset.known_tokenizer(config(tmp_path, tokenizer_from="champion", tokenizer="wordpiece")) is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"bundle": "b', r"/champion.json cannot be read as JSON.*: put a copy of it back, or let tokenizer_from be"),
        ('{"bundle": "../b1"}', "bundle '../b1' is not under"),
        ('{"bundle": "gone"}', r"is no bundle, and .*/champion.json names it"),
        ('{"bundle": "b2"}', r"bundles/b2 holds bundle b1 \(expected b2, which .*/champion.json names\)"),
    ],
)
def test_an_alias_that_is_cut_or_names_no_bundle_or_another_one_is_refused(tmp_path, entry, message):
    (tmp_path / "bundles" / "b2").mkdir(parents=True)
    (tmp_path / "bundles" / "b2" / "manifest.json").write_text('{"id": "b1"}')
    (tmp_path / "bundles" / "champion.json").write_text(entry)
    with pytest.raises(InputError, match=message):
        build_dataset.known_tokenizer(config(tmp_path, tokenizer_from="champion"))


def test_a_dataset_that_a_killed_job_took_out_of_its_place_is_back_before_another_is_built(tmp_path):
    target = tmp_path / "datasets" / f"ds={DS}"
    digest = write_dataset(target, small_shop(titles=20, clicks=40), files=1).digest
    target.rename(target.with_name(f".{target.name}.old"))
    with pytest.raises(InputError, match="to take a tokenizer from"):
        build_dataset.run(config(tmp_path, tokenizer_from=str(tmp_path / "nowhere")))
    assert verify(target).digest == digest


def test_a_hundred_million_rows_find_their_place_among_64_files(spark):
    places = spark.createDataFrame([(0,), (50_000_000,), (99_999_999,)], "place int")
    assert [row[0] for row in places.select(file_of(F.col("place"), 10**8, 64)).collect()] == [0, 32, 63]
