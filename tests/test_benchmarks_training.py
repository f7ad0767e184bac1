"""What the training benchmarks rest on: bytes counted, turns taken, and the same tokens for both sides."""

import json
import os
import socket
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from benchmarks.speed import contrastive_loss, deepspeed_worker, wire
from benchmarks.speed.pacing import Paced, interval, race
from benchmarks.speed.scaling import PARAMETERS, PLAIN, StepShape, bytes_sent
from benchmarks.speed.training import no_worse
from benchmarks.speed.training_data import DS, made_up, write, write_for_others
from benchmarks.speed.training_deepspeed import RANKS, measure, shape
from benchmarks.speed.training_worker import Task
from etl.dataset import verify
from etl.warehouse import Warehouse
from model.encoder import Encoder
from model.launch import environment
from model.presets import PRESETS, EncoderConfig
from model.ranks import Ranks
from model.reader import ReaderConfig, TrainingReader
from tests.model_data import small_shop, write_dataset

# Its parameters weigh more than headers do, and most of them are large enough for stage 3 to part with.
SMALL = EncoderConfig(
    tokens="wordpiece",
    rows=8_000,
    dim=64,
    layers=2,
    hidden=64,
    heads=2,
    ffn=256,
    bag=False,
    feature_weights=False,
    positions=60,
)
STEPS = """
import sys
from benchmarks.speed.pacing import pause
pause()
for _ in range({taken}):
    sum(range(10**6))
    pause()
sys.exit({code})
"""


def paced(taken: int, code: str = "0") -> Paced:
    return Paced([sys.executable, "-c", STEPS.format(taken=taken, code=code)], {"threads": 1}, os.environ)


@pytest.mark.slow
def test_bytes_sent_by_two_ranks_are_those_of_the_formula_at_every_stage(tmp_path):
    out = str(tmp_path / "steps.json")
    task = deepspeed_worker.Task(stages=[PLAIN, 0, 1, 2, 3], encoder=SMALL.to_json(), batch=64, steps=2, out=out)
    last = {step.stage: step.phases for step in measure(task)}
    for stage, phases in last.items():
        wanted = bytes_sent(shape(task, stage))
        assert sum(phases.values()) / RANKS == pytest.approx(sum(wanted.values()), rel=0.05), stage
        if stage < 3:  # there some parameters are gathered after the step instead
            assert {name: sent / RANKS for name, sent in phases.items()} == pytest.approx(wanted, rel=0.05), stage


def test_gathered_embeddings_grow_with_the_ranks_and_gradients_do_not():
    few, many = (bytes_sent(StepShape(world=world, batch=8, dim=4, parameters=100)) for world in (2, 1_000))
    assert many["forward"] == 999 * few["forward"]
    assert few["backward"] == 400
    assert many["backward"] == pytest.approx(800, rel=0.01)


def test_the_published_encoder_has_the_parameters_that_the_table_reckons_with():
    assert sum(p.numel() for p in Encoder(PRESETS["published"].encoder).parameters()) == PARAMETERS


def test_bytes_are_counted_where_they_are_sent():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        other, _ = server.accept()
        before = wire.sent()
        client.sendall(bytes(1000))
        other.sendall(bytes(200))
        assert len(client.recv(200, socket.MSG_WAITALL)) == 200
        assert len(other.recv(1000, socket.MSG_WAITALL)) == 1000
        assert wire.sent() - before == 1200
        other.close()


def test_processes_take_as_many_steps_as_each_other():
    found = race({"a": paced(3), "b": paced(3)}, steps=3, warm_up=1)
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2}
    assert all(0 < second < 10 for seconds in found.values() for second in seconds)


def test_our_trainer_takes_the_steps_it_is_asked_for_and_encodes_in_the_end(tmp_path):
    write_dataset(Warehouse.at(str(tmp_path)).dataset(DS), small_shop())
    (tmp_path / "encode.json").write_text(json.dumps({"query": ["kettle"], "title": ["red kettle", "lamp"]}))
    task = Task(root=str(tmp_path), preset="bag", batch=32, steps=3, threads=1, encode=str(tmp_path / "encode.json"))
    argv = [sys.executable, "-m", "benchmarks.speed.training_worker"]
    found = race({"ours": Paced(argv, asdict(task), environment(1, "cpu", local=True))}, steps=3, warm_up=1)
    assert len(found["ours"]) == 2
    assert np.load(tmp_path / "ours-title.npy").shape == (2, PRESETS["bag"].encoder.dim)


def test_a_process_that_fails_is_an_error_with_what_it_said():
    with pytest.raises(RuntimeError, match=r"ended with 1 before it had taken its steps:\nno more"):
        race({"a": paced(1, "'no more'")}, steps=2, warm_up=0)


def test_a_process_that_fails_at_its_end_is_an_error_too():
    with pytest.raises(RuntimeError, match="ended with 7"):
        race({"a": paced(2, "7")}, steps=2, warm_up=0)


def test_the_interval_of_a_ratio_holds_it_and_is_a_point_where_nothing_varies():
    ratio, low, high = interval([2.0, 4.0, 2.2, 2.1, 2.1], [1.0, 1.1, 1.0, 0.9, 1.0])
    assert low <= ratio <= high
    assert low < high
    assert interval([3.0] * 5, [2.0] * 5) == (1.5, 1.5, 1.5)


def test_four_steps_have_no_interval():
    with pytest.raises(ValueError, match=r"4 measured steps are too few for an interval \(expected >= 5\): raise --steps"):
        interval([2.0] * 4, [1.0] * 4)


def test_both_sides_are_given_the_same_tokens_of_the_same_pairs(tmp_path):
    pairs, tokenizer = made_up(64)
    write(tmp_path, pairs, tokenizer)
    write_for_others(tmp_path, pairs, tokenizer, {})
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = json.loads((tmp_path / "pairs.json").read_text())
    wanted = sorted((*theirs.encode(query).ids, *theirs.encode(title).ids) for query, title in texts)
    dataset = Warehouse.at(str(tmp_path)).dataset(DS)
    reader = TrainingReader(dataset, verify(dataset), ReaderConfig(batch=8, crops=0.0), Ranks())
    found = []
    for batch in reader.batches(8):
        ids = batch.texts.features[batch.texts.tokens].numpy()
        queries, titles = np.split(np.array(np.split(ids, batch.texts.offsets[1:-1].numpy()), dtype=object), 2)
        found += [(*query, *title) for query, title in zip(queries, titles, strict=True)]
    assert sorted(found) == wanted


def test_made_up_texts_are_as_long_as_said():
    pairs, tokenizer = made_up(2_000)
    lengths = [np.mean([len(tokenizer.ids(pair[n], "title")) for pair in pairs.clicks]) for n in range(2)]
    assert lengths == pytest.approx([7.5, 29.0], rel=0.03)


def test_the_losses_that_are_timed_beside_each_other_are_one_loss():
    found = {}
    for name in ("ours", *contrastive_loss.PEERS):
        torch.manual_seed(1)
        found[name] = contrastive_loss.WORK[name](contrastive_loss.BLOCK + 100)
    assert contrastive_loss.same(found["ours"], found["plain"])
    assert contrastive_loss.same(found["ours"], found["blocks"])


def test_a_trainer_that_recalls_less_is_no_comparison():
    assert no_worse((0.5, 0.8, 0.4), (0.5, 0.9, 0.4)).startswith("R@10 0.500")
    with pytest.raises(RuntimeError, match="recalls less"):
        no_worse((0.49, 0.8, 0.4), (0.5, 0.7, 0.3))
