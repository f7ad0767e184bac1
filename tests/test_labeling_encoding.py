from __future__ import annotations

import re
import time

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyspark import TaskContext
from pyspark.accumulators import Accumulator, AddingAccumulatorParam
from pyspark.resource import ResourceInformation

from etl.errors import InputError
from etl.text import normalise
from etl.warehouse import Warehouse
from labeling.encoding import encode_each, encode_texts, labelling_bundle, worker_bundle
from labeling.product_text import product_text
from labeling.tally import Tally, watched
from tests.labeling_data import DIM, write_small_bundle
from tests.test_model_inference import Limited


@pytest.mark.parametrize("title", [None, "", "  \n ", "👟🏽🔥", "\x00", "\ud83d", "!!! ---", "\u200b\ufeff"])
def test_a_title_without_a_word_has_a_reason(title):
    assert product_text(title, normalise)[1:] == (None, "no_text")


def test_a_megabyte_of_title_has_a_reason():
    assert product_text("shoe " * 200_000, normalise).reason == "too_long"


@pytest.mark.parametrize(
    "title", ["Red\x00 Kettle", "red \ud83dkettle\udfff", "ＲＥＤ　ｋｅｔｔｌｅ 🔥", "\u200bred\n\nkettle"]
)
def test_what_the_normaliser_drops_makes_no_other_text(title):
    assert product_text(title, normalise) == product_text("red kettle", normalise)


def test_right_to_left_text_is_text():
    assert product_text("غلاية كهربائية", normalise).reason is None


def batches_of(texts: list[str | None], size: int) -> list[pa.RecordBatch]:
    rows = sorted(product_text(text, normalise) for text in texts)
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(("text_hash", "text", "reason"))})
    return table.cast(pa.schema([(name, pa.string()) for name in table.column_names])).to_batches(size)


def encoded(bundle, batches: list[pa.RecordBatch]) -> dict[str, tuple]:
    rows = [row for batch in encode_texts(batches, path=str(bundle.path), bundle_id=bundle.id) for row in batch.to_pylist()]
    return {row["text_hash"]: (row["vector"], row["dim"], row["reason"]) for row in rows}


def test_the_same_vectors_come_out_whatever_arrow_batches_come_in(root):
    bundle = write_small_bundle(root)
    texts = [f"kettle {n}" for n in range(700)] + [None]
    whole = encoded(bundle, batches_of(texts, 1_000))
    assert whole == encoded(bundle, batches_of(texts, 7))
    assert len(whole) == 701
    assert {len(vector) for vector, _, _ in whole.values() if vector} == {2 * DIM}


@pytest.mark.fault("poison")
def test_a_text_without_a_vector_keeps_its_reason(root):
    found = encoded(write_small_bundle(root), batches_of([None, "kettle"], 10))
    assert found[product_text("", normalise).text_hash] == (None, DIM, "no_text")


@pytest.mark.fault("poison")
def test_a_poisonous_text_costs_its_own_vector_only(root):
    found = encoded(write_small_bundle(root, poison="cursed"), batches_of(["kettle", "cursed kettle", "dress"], 10))
    assert [found[product_text(t, normalise).text_hash][2] for t in ("kettle", "cursed kettle", "dress")] == [
        None,
        "not_encodable",
        None,
    ]


@pytest.mark.fault("poison")
def test_a_text_that_makes_the_encoder_raise_stands_alone_in_the_end(root):
    bundle = write_small_bundle(root)
    words = ("kettle", "dress", "lamp", "sofa")
    cursed = next(iter(set(bundle.tokenizer.features("cursed")) - {f for w in words for f in bundle.tokenizer.features(w)}))

    def fail(_module, inputs):
        if cursed in inputs[0].features.tolist():
            raise ValueError("cannot be encoded")

    bundle.encoder.register_forward_pre_hook(fail)
    found = encode_each(bundle, [*words, "cursed", *words])
    assert [vector is None for vector in found] == [False] * 4 + [True] + [False] * 4
    assert found[:4] == found[5:]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), RuntimeError("CUDA error: unspecified")])
def test_a_failure_of_the_device_is_raised_and_not_stored_as_a_reason(root, error):
    def fail(_module, _inputs):
        raise error

    bundle = write_small_bundle(root)
    bundle.encoder.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match=str(error)):
        encode_each(bundle, ["kettle", "dress"])


def test_calls_that_were_halved_for_lack_of_memory_are_counted_beside_the_texts(root):
    bundle = write_small_bundle(root)
    batches = batches_of([f"kettle {n}" for n in range(300)], 100)
    expected = encoded(bundle, batches)
    hook = worker_bundle(str(bundle.path), bundle.id, "cpu").encoder.register_forward_pre_hook(Limited(200))
    tally = Tally(*(Accumulator(n, 0, AddingAccumulatorParam(0)) for n in range(2)))
    found = list(encode_texts(batches, path=str(bundle.path), bundle_id=bundle.id, tally=tally))
    hook.remove()
    for row in (row for batch in found for row in batch.to_pylist()):
        halves = (np.frombuffer(vector, "<f2") for vector in (row["vector"], expected[row["text_hash"]][0]))
        assert np.allclose(*halves, atol=1e-3)
    assert tally.texts.value == 300
    assert tally.halved.value >= 300 * 2 // 512 + 1


def test_the_driver_says_how_many_texts_are_through_and_what_is_left(caplog, monkeypatch):
    monkeypatch.setattr("model.progress.LINE_SECONDS", 0.0)
    monkeypatch.setattr("labeling.tally.LOOK_SECONDS", 0.02)
    tally = Tally(*(Accumulator(n, 0, AddingAccumulatorParam(0)) for n in range(2)))
    with caplog.at_level("INFO"), watched(tally, 100):
        tally.texts.add(40)
        time.sleep(0.5)
    assert re.search(r"encoding: 40% of 100 texts, eta \d+s", caplog.text)


def test_a_gpu_that_spark_gave_and_torch_does_not_find_is_no_reason_to_encode_elsewhere(root, monkeypatch):
    bundle = write_small_bundle(root)
    monkeypatch.setattr(TaskContext, "_taskContext", None)  # a new one makes itself the process's, and stays
    context = TaskContext()
    context._resources = {"gpu": ResourceInformation("gpu", ["99"])}
    batches = batches_of(["kettle"], 1)
    with pytest.raises(InputError, match=r"GPU '99', torch finds \d+ GPUs .* --device cpu"):
        encoded(bundle, batches)
    told = list(encode_texts(batches, path=str(bundle.path), bundle_id=bundle.id, device="cpu"))
    assert told[0].column("vector")[0].is_valid


@pytest.mark.fault("poison")
def test_what_is_our_own_mistake_is_no_poison(root):
    with pytest.raises((AttributeError, TypeError)):
        encode_each(write_small_bundle(root), ["kettle", None])


@pytest.mark.fault("model-damaged")
def test_a_worker_refuses_another_bundle_than_the_driver_chose(root):
    bundle = write_small_bundle(root)
    with pytest.raises(InputError, match="the driver chose other"):
        worker_bundle(str(bundle.path), "other", "cpu")


@pytest.mark.fault("model-damaged")
def test_a_worker_refuses_a_changed_file(root):
    bundle = write_small_bundle(root, seed=7)
    (bundle.path / "encoder.json").write_text("{}")
    with pytest.raises(InputError, match=r"encoder\.json has SHA-256"):
        worker_bundle(str(bundle.path), bundle.id, "cpu")


def test_without_a_champion_the_message_says_what_to_run(root):
    with pytest.raises(InputError, match="has no champion: run `labeller train`"):
        labelling_bundle(Warehouse.at(str(root)), "")


@pytest.mark.parametrize("pinned", ["none", "../bundles", "a/b", ".."])
def test_a_pinned_bundle_must_be_a_directory_of_the_warehouse(root, pinned):
    write_small_bundle(root)
    with pytest.raises(InputError, match="is not under"):
        labelling_bundle(Warehouse.at(str(root)), pinned)
