"""The query side without torch: vectors equal to the bundle's, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from labeling import export_onnx
from labeling.export_onnx import export
from model.bundle import load_bundle
from model.online import GRAPH_FILE, MANIFEST_FILE, load_online_encoder
from model.presets import PRESETS
from tests.bundles import promote_untrained_bundle
from tests.test_model_sentence_transformer import mixed_titles, write

SMALL = {"rows": 2**10, "dim": 32, "hidden": 16, "heads": 2, "ffn": 32}
CONFIGS = {name: replace(preset.encoder, **SMALL) for name, preset in PRESETS.items()} | {
    "words that have weights, and texts longer than the layers take": replace(
        PRESETS["hybrid"].encoder, **SMALL, token_weights=True, positions=6
    )
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An untrained champion's warehouse, and its export."""
    root = tmp_path_factory.mktemp("warehouse")
    promote_untrained_bundle(root)
    assert export_onnx.main(["--root", str(root), "--out", str(root / "online")]) == EXIT_OK
    return root, root / "online"


def copy_of(exported: tuple[Path, Path], target: Path) -> Path:
    target.mkdir()
    for file in exported[1].iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("name", CONFIGS)
def test_vectors_of_every_preset_are_those_of_its_bundle(tmp_path, name):
    bundle = load_bundle(write(tmp_path, CONFIGS[name], max_query_tokens=12))
    online = load_online_encoder(export(bundle, tmp_path / "online"))
    queries = mixed_titles(300)
    lengths = {len(bundle.tokenizer.tokens(query, "query")) for query in queries}
    assert max(lengths) == 12
    assert len(lengths) > 6
    ours = bundle.encode(queries, "query")
    for size in (1, 7, 300):
        theirs = [online.encode(queries[start : start + size]) for start in range(0, 300, size)]
        assert np.abs(np.concatenate(theirs) - ours).max() < 1e-4
    assert (ours @ ours.T).mean() < 0.99  # they differ at all


def test_queries_without_a_word_get_the_zero_vector_alone_and_beside_others(exported):
    online = load_online_encoder(exported[1])
    assert not online.encode(["", " ", "👟"]).any()
    np.testing.assert_array_equal(np.linalg.norm(online.encode(["", "kettle"]), axis=1).round(6), [0, 1])
    assert online.encode([]).shape == (0, 32)


def test_the_example_prints_the_bundles_vectors_and_loads_neither_torch_nor_spark(exported):
    root, out = exported
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "assert not {'torch', 'pyspark'} & set(sys.modules)"
    )
    queries = ["winter gloves", "运动鞋"]
    argv = [sys.executable, "-c", code, str(out / "example.py"), *queries]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    bundle = load_bundle(next((root / "bundles").glob("*/manifest.json")).parent)
    assert [(row["query"], row["bundle"]) for row in rows] == [(query, bundle.id) for query in queries]
    assert np.abs(np.array([row["vector"] for row in rows]) - bundle.encode(queries, "query")).max() < 1e-4


def test_the_same_bundle_makes_the_same_files_in_place_of_the_former(exported):
    root, out = exported
    before = (out / MANIFEST_FILE).read_text()
    assert export_onnx.main(["--root", str(root), "--bundle", "", "--out", str(out)]) == EXIT_OK
    assert (out / MANIFEST_FILE).read_text() == before
    assert not list(root.glob(".writing-*"))


def test_the_graph_holds_each_weight_once_and_no_path_of_this_machine(exported):
    root, out = exported
    weights = sum(file.stat().st_size for file in (root / "bundles").glob("*/model.safetensors"))
    assert 0.5 * weights < (out / f"{GRAPH_FILE}.data").stat().st_size < 1.1 * weights
    assert str(Path(export_onnx.__file__).parent.parent).encode() not in (out / GRAPH_FILE).read_bytes()


def test_files_that_are_missing_or_changed_are_refused_all_by_name(exported, tmp_path):
    out = copy_of(exported, tmp_path / "copy")
    (out / f"{GRAPH_FILE}.data").write_bytes(b"swapped")
    (out / "tokenizer_spec.json").unlink()
    with pytest.raises(InputError, match=r"(?s)is damaged.*encoder.onnx.data is missing or changed.*tokenizer_spec.json"):
        load_online_encoder(out)


def test_what_is_no_export_or_of_another_format_is_refused_with_the_cure(exported, tmp_path):
    with pytest.raises(InputError, match=r"holds no export .*make one with `labeller export-onnx`"):
        load_online_encoder(tmp_path)
    out = copy_of(exported, tmp_path / "copy")
    manifest = json.loads((out / MANIFEST_FILE).read_text())
    (out / MANIFEST_FILE).write_text(json.dumps(manifest | {"onnx_export": 0}))
    with pytest.raises(InputError, match="export format 0, this version reads 1"):
        load_online_encoder(out)


def test_a_directory_of_something_else_is_left_alone(exported, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert export_onnx.main(["--root", str(exported[0]), "--out", str(tmp_path)]) == EXIT_BAD_INPUT
    assert "exists and holds no export" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_package_that_is_not_installed_is_named_with_the_cure(exported, tmp_path, monkeypatch):
    root, out = exported
    for package in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match="onnxruntime is not installed: `pip install onnxruntime`"):
        load_online_encoder(out)
    bundle = load_bundle(next((root / "bundles").glob("*/manifest.json")).parent)
    with pytest.raises(InputError, match="onnxscript is not installed: `pip install onnxscript`"):
        export(bundle, tmp_path / "online")
    assert not list(tmp_path.iterdir())
