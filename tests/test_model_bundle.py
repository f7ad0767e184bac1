import datetime as dt
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from etl.durable import SEAL, write_json, write_sealed
from etl.errors import InputError
from etl.text import normalise
from etl.tokenizer import WordHashTokenizer
from etl.tokenizer_spec import TokenizerSpec
from etl.warehouse import Warehouse
from etl.wordpiece import WordPieceTokenizer
from model.bundle import (
    CANDIDATE,
    CHAMPION,
    _sha256,
    add_calibration,
    add_file,
    candidate,
    champion,
    load_bundle,
    set_alias,
    write_bundle,
)
from model.fit import draw
from model.model_card import CARD_FILE, GATE_FILE, model_card, record_gate, write_card
from model.presets import PRESETS
from tests.damage import each_damage
from tests.killed import each_death

TINY = PRESETS["tiny"].encoder
WORDS = WordHashTokenizer(TokenizerSpec(rows=TINY.rows, normaliser=normalise.hash))
DS = dt.date(2024, 5, 7)


@pytest.fixture
def warehouse(root):
    return Warehouse.at(str(root))


def written(warehouse, seed=1):
    metrics = {"heldout": {"test": {"recall@10": 0.5}}}
    return write_bundle(warehouse.bundles, draw(TINY, seed), WORDS, ds=DS, metrics=metrics, lineage={"pairs": "delta:3"})


def test_a_bundle_comes_back_with_its_id_and_encodes(warehouse):
    path = written(warehouse)
    bundle = load_bundle(path)
    assert bundle.id == path.name
    assert bundle.manifest["lineage"] == {"pairs": "delta:3"}
    assert (bundle.calibration, bundle.calibration_id) == (None, "")
    vectors = bundle.encode(["Red Kettle", "", "kettle red", "kettle"], "title")
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1, 1], abs=1e-6)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[3]


def test_whoever_may_read_the_directory_may_read_every_file_of_a_bundle(warehouse):
    encoder = draw(replace(PRESETS["published"].encoder, rows=200, dim=16, hidden=32, heads=4, ffn=64), 1)
    path = write_bundle(warehouse.bundles, encoder, WORDS, ds=DS, metrics={}, lineage={})
    files = [file for file in path.rglob("*") if file.is_file()]
    assert "2_Dense" in {file.parent.name for file in files}
    assert {file.stat().st_mode & 0o044 for file in files} == {0o044}


def test_vectors_are_cut_to_dimensions_that_were_trained_and_to_no_others(warehouse):
    encoder = draw(replace(TINY, matryoshka=(4, 16)), 1)
    bundle = load_bundle(write_bundle(warehouse.bundles, encoder, WORDS, ds=DS, metrics={}, lineage={}))
    texts = ["red kettle", "", "blue lamp"]
    whole, cut = bundle.encode(texts, "title"), bundle.encode(texts, "title", dim=4)
    assert bundle.encoder.config.matryoshka == (4, 16)
    assert cut.shape == (3, 4)
    assert np.linalg.norm(cut, axis=1) == pytest.approx([1, 0, 1], abs=1e-6)
    assert cut[0] == pytest.approx(whole[0, :4] / np.linalg.norm(whole[0, :4]), abs=1e-6)
    assert np.array_equal(bundle.encode(texts, "title", dim=TINY.dim), whole)
    with pytest.raises(InputError, match=r"of 8 dimensions: the encoder was trained for 4, 16, 32; .*--matryoshka 8"):
        bundle.encode(texts, "title", dim=8)


def test_a_bundle_that_is_made_again_has_the_figures_and_lineage_of_that_and_keeps_its_calibration(warehouse):
    first = written(warehouse)
    add_calibration(first, {"knots": [0.5]})
    metrics, lineage = {"heldout": {"test": {"recall@10": 0.6}}}, {"pairs": "delta:4"}
    again = load_bundle(write_bundle(warehouse.bundles, draw(TINY, 1), WORDS, ds=DS, metrics=metrics, lineage=lineage))
    assert again.path == first
    assert (again.metrics, again.manifest["lineage"]) == (metrics, lineage)
    assert again.calibration == {"knots": [0.5]}


def test_the_id_is_that_of_the_content(warehouse):
    first = written(warehouse)
    assert written(warehouse) == first
    assert written(warehouse, seed=2) != first
    assert sorted(p.name for p in warehouse.bundles.iterdir()) == sorted({first.name, written(warehouse, seed=2).name})


def test_a_wordpiece_bundle_carries_its_vocabulary(warehouse):
    spec = TokenizerSpec(kind="wordpiece", rows=60, normaliser=normalise.hash)
    pieces = WordPieceTokenizer.train(spec, ["red kettle", "blue lamp"])
    config = replace(PRESETS["published"].encoder, rows=60, dim=16, hidden=16, layers=1, heads=2, ffn=16)
    path = write_bundle(warehouse.bundles, draw(config, 1), pieces, ds=DS, metrics={}, lineage={})
    assert load_bundle(path).encode(["red kettle"], "query").shape == (1, 16)
    (path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer.json is missing"):
        load_bundle(path)


@pytest.mark.fault("model-damaged")
@pytest.mark.parametrize("name", ["model.safetensors", "encoder.json", "tokenizer_spec.json", "metrics.json"])
def test_a_changed_file_is_refused_by_name(warehouse, name):
    path = written(warehouse)
    content = bytearray((path / name).read_bytes())
    content[-2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} has SHA-256"):
        load_bundle(path)


@pytest.mark.fault("model-damaged")
def test_truncated_weights_and_a_missing_file_are_reported_together(warehouse):
    path = written(warehouse)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    (path / "encoder.json").unlink()
    with pytest.raises(InputError, match=r"(?s)encoder.json is missing.*model.safetensors has SHA-256"):
        load_bundle(path)


@pytest.mark.fault("model-damaged")
def test_a_directory_without_manifest_is_no_bundle(warehouse, tmp_path):
    path = written(warehouse)
    (path / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"is no bundle.*no manifest.json"):
        load_bundle(path)


@pytest.mark.fault("model-damaged")
def test_a_manifest_with_another_id_or_format_is_refused(warehouse):
    path = written(warehouse)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest[SEAL]
    write_sealed(path / "manifest.json", manifest | {"id": "0" * 12})
    with pytest.raises(InputError, match="is not that of its files"):
        load_bundle(path)
    write_sealed(path / "manifest.json", manifest | {"format": 99})
    with pytest.raises(InputError, match="format 99"):
        load_bundle(path)


def test_a_calibration_is_added_with_an_id_of_its_content(warehouse):
    path = written(warehouse)
    calibration_id = add_calibration(path, {"knots": [0.1, 0.9]})
    bundle = load_bundle(path)
    assert bundle.calibration == {"knots": [0.1, 0.9]}
    assert bundle.calibration_id == calibration_id
    assert add_calibration(path, {"knots": [0.2, 0.9]}) != calibration_id
    edited = (path / "calibration.json").read_text().replace("0.9", "0.8")
    (path / "calibration.json").write_text(edited)
    with pytest.raises(InputError, match="changed by hand"):
        load_bundle(path)


def test_aliases_point_to_bundles_of_their_warehouse(warehouse, tmp_path):
    assert champion(warehouse) is None
    path = written(warehouse)
    set_alias(warehouse, CANDIDATE, path)
    set_alias(warehouse, CHAMPION, path)
    assert champion(warehouse) == candidate(warehouse) == path
    alias = json.loads((warehouse.bundles / "champion.json").read_text())
    assert alias == {"bundle": path.name, "ds": "2024-05-07", "metrics": {"test": {"recall@10": 0.5}}}
    with pytest.raises(InputError, match="its own warehouse only"):
        set_alias(warehouse, CHAMPION, tmp_path / "elsewhere")


@pytest.mark.fault("model-damaged")
def test_an_alias_that_points_nowhere_is_refused(warehouse):
    warehouse.bundles.mkdir()
    (warehouse.bundles / "champion.json").write_text('{"bundle": "gone", "ds": "2024-05-07"}')
    with pytest.raises(InputError, match=r"champion.json points to bundle 'gone', which is not there"):
        champion(warehouse)


@pytest.mark.fault("model-damaged")
def test_an_alias_that_was_cut_is_refused_by_its_name_with_the_cure(warehouse):
    set_alias(warehouse, CHAMPION, written(warehouse))
    file = warehouse.bundles / "champion.json"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(
        InputError, match=r'/champion.json cannot be read as JSON.*: put a copy .* write {"bundle": ID, "ds"'
    ):
        champion(warehouse)


@pytest.mark.fault("model-damaged")
def test_a_bundle_that_lies_under_another_s_name_is_refused_with_both_names(warehouse):
    first, second = written(warehouse), written(warehouse, seed=2)
    shutil.rmtree(second)
    shutil.copytree(first, second)
    with pytest.raises(InputError, match=rf"{second} holds bundle {first.name} \(expected {second.name}, as"):
        load_bundle(second)
    assert load_bundle(first).id == first.name


@pytest.mark.fault("model-damaged")
def test_the_figures_of_another_bundle_are_refused(warehouse):
    first, second = written(warehouse), written(warehouse, seed=2)
    metrics = {"heldout": {"test": {"recall@10": 0.6}}}
    write_bundle(warehouse.bundles, draw(TINY, 2), WORDS, ds=DS, metrics=metrics, lineage={})
    shutil.copy(second / "metrics.json", first / "metrics.json")
    with pytest.raises(InputError, match=r"metrics.json has SHA-256"):
        load_bundle(first)


def as_before_seals(path: Path) -> None:
    """Make a bundle one of before its manifest and its figures had digests of their own."""
    metrics, manifest = (json.loads((path / name).read_text()) for name in ("metrics.json", "manifest.json"))
    write_json(path / "metrics.json", {name: value for name, value in metrics.items() if name != SEAL})
    manifest["files"]["metrics.json"] = _sha256(path / "metrics.json")
    write_json(path / "manifest.json", {name: value for name, value in manifest.items() if name != SEAL})


@pytest.mark.fault("killed-at-boundary")
@pytest.mark.parametrize("older", [False, True])
def test_a_champion_that_a_training_makes_again_is_whole_wherever_that_is_killed(warehouse, tmp_path, older):
    tokenizer = WordHashTokenizer(TokenizerSpec(rows=64, normaliser=normalise.hash))
    encoder = draw(replace(TINY, rows=64), 1)
    figures = {name: {"heldout": {"test": {"recall@10": value}}} for name, value in (("old", 0.5), ("new", 0.6))}

    def make(which: str) -> Path:
        return write_bundle(warehouse.bundles, encoder, tokenizer, ds=DS, metrics=figures[which], lineage={"of": which})

    path = make("old")
    add_calibration(path, {"knots": [0.5]})
    set_alias(warehouse, CHAMPION, path)
    if older:
        as_before_seals(path)
    shutil.copytree(warehouse.bundles, tmp_path / "laid")

    def lay_down() -> None:
        shutil.rmtree(warehouse.bundles)
        shutil.copytree(tmp_path / "laid", warehouse.bundles)

    seen = []
    for _ in each_death(lay_down, lambda _: make("new")):
        bundle = load_bundle(champion(warehouse))
        assert bundle.calibration == {"knots": [0.5]}
        seen.append((next(which for which in figures if figures[which] == bundle.metrics), bundle.manifest["lineage"]["of"]))
    assert list(dict.fromkeys(seen)) == [("old", "old"), ("new", "old"), ("new", "new")]


@pytest.mark.fault("model-damaged")
def test_a_damaged_bundle_is_mended_by_making_it_again(warehouse):
    path = written(warehouse)
    (path / "model.safetensors").write_bytes(b"")
    (path / "encoder.json").unlink()
    assert load_bundle(written(warehouse)).path == path


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    """A bundle with every file that one may have."""
    warehouse = Warehouse(tmp_path_factory.mktemp("full"))
    spec = TokenizerSpec(kind="wordpiece", rows=40, normaliser=normalise.hash)
    pieces = WordPieceTokenizer.train(spec, ["red kettle", "blue lamp"])
    config = replace(PRESETS["published"].encoder, rows=40, dim=8, hidden=16, layers=1, heads=2, ffn=16)
    metrics = {"heldout": {"test": {"recall@10": 0.5}}, "curve": [[20, 1.234567]]}
    path = write_bundle(
        warehouse.bundles, draw(config, 1), pieces, ds=DS, metrics=metrics, lineage={"dataset": "2024-05-07"}
    )
    files = dict([add_file(path, "term_prototypes", b"vectors")])
    add_calibration(path, {"files": files, "terms": {"knots": [0.125, 0.9]}})
    record_gate(path, {"ds": str(DS), "promoted": True, "problems": [], "floor": 0.05, "tolerance": 0.02, "compared": None})
    return path


@pytest.mark.fault("model-damaged")
def test_a_bundle_of_which_any_file_that_a_job_reads_is_cut_or_has_a_flipped_bit_is_refused_by_that_file_s_name(full):
    files = [file for file in full.rglob("*") if file.is_file() and file.name not in (GATE_FILE, CARD_FILE)]
    assert len(files) == 17
    for file in files:
        for damage in each_damage(file):
            with pytest.raises(InputError) as error:
                load_bundle(full)
            assert file.name in str(error.value), damage
    assert load_bundle(full).id == full.name


@pytest.mark.fault("model-damaged")
def test_a_gate_that_was_cut_is_named_with_the_cure_where_the_card_is_made_of_it(full):
    for damage in each_damage(full / GATE_FILE, flips=1):
        if "cut" in damage:
            with pytest.raises(
                InputError, match=r"/gate.json cannot be read as JSON.*: delete it, `labeller promote` writes"
            ):
                model_card(full)


@pytest.mark.fault("malicious")
@pytest.mark.parametrize("name", [".champion.json.tmp", ".MODEL_CARD.md"])
def test_a_link_that_was_laid_where_drafts_lay_is_not_written_through(warehouse, tmp_path, name):
    path = written(warehouse)
    (tmp_path / "outside").write_text("untouched")
    (path / name).symlink_to(tmp_path / "outside")
    (warehouse.bundles / name).symlink_to(tmp_path / "outside")
    set_alias(warehouse, CHAMPION, path)
    write_card(path)
    assert (tmp_path / "outside").read_text() == "untouched"
