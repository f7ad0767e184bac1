"""The loop in one process with the plain torch engine, on small datasets."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from etl.dataset import load_token_table, verify
from etl.errors import InputError
from etl.tokenizer import load_tokenizer
from labeling.machine import check_cpu
from model.compact import compact, expand
from model.deepspeed_settings import deepspeed_settings
from model.dual_encoder import DualEncoder
from model.encoder import Encoder
from model.engines import TorchEngine, optimizer, parameter_groups
from model.evaluate import TYPOS, evaluate
from model.fit import draw, fit
from model.inference import embed
from model.loss import Rows
from model.matryoshka import shortened
from model.metrics import MEASURES, hits_of, recall
from model.packing import pack, tokenised
from model.precision import choose
from model.presets import PRESETS
from model.progress import Curve, alignment, progress_line, uniformity
from model.ranks import Ranks
from model.reader import Batch, ReaderConfig, TrainingReader
from model.retrieval import top_k
from model.shares import require_enough, smallest_share
from model.train_config import TrainConfig
from model.trainer import Collapsed, LoopConfig, NotFinite, rates, schedule, train
from tests.model_data import DS, small_shop, write_dataset


def config(root, **changes) -> TrainConfig:
    return TrainConfig(root=str(root), ds=DS, **({"preset": "tiny", "epochs": 2.0} | changes))


def parameters(encoder: Encoder) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in encoder.parameters()])


def test_training_finds_held_out_queries_better_than_the_random_start(shop_root):
    settings = config(shop_root, epochs=6.0)
    manifest = verify(settings.dataset)
    fitted = fit(settings, manifest)
    before = evaluate(draw(fitted.encoder.config, settings.seed), settings.dataset, manifest).figures()
    after = evaluate(fitted.encoder, settings.dataset, manifest).figures()
    assert fitted.curve.points[-1][1] < fitted.curve.points[0][1]
    assert after["valid"]["recall@10"] > before["valid"]["recall@10"]
    assert after["test"]["queries"] == before["test"]["queries"] == 4


def test_evaluation_has_every_split_and_searches_the_titles_that_no_crop_shows(tmp_path, caplog):
    shop = small_shop()
    shop.corpus = {9000: "red kettle nobody trains on"}
    shop.heldout += [("time", 0, [1001]), ("item", 1, [9000])]
    shop.queries[1] = shop.corpus[9000]
    manifest = write_dataset(tmp_path, shop)
    encoder = draw(config(tmp_path).chosen_preset(manifest).encoder, seed=1)
    with caplog.at_level(logging.INFO):
        figures = evaluate(encoder, tmp_path, manifest).figures()
    assert "evaluating 10 held-out queries against 161 titles" in caplog.text
    assert list(figures) == ["valid", "time", "test", "item"]
    assert figures["item"] | {TYPOS: 1.0} == {"queries": 1} | dict.fromkeys((*MEASURES, TYPOS), 1.0)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(shop_root):
    manifest = verify(config(shop_root).dataset)
    once, again, other = (parameters(fit(config(shop_root, seed=s), manifest).encoder) for s in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_shrunken_published_encoder_takes_steps_on_wordpiece(tmp_path):
    manifest = write_dataset(tmp_path / "ds=2024-05-07", small_shop(), kind="wordpiece", rows=200)
    shrunk = replace(PRESETS["published"].encoder, rows=200, dim=32, hidden=32, layers=2, heads=4, ffn=64)
    reader = TrainingReader(tmp_path / "ds=2024-05-07", manifest, ReaderConfig(batch=16, crops=0.5), Ranks())
    model = DualEncoder(draw(shrunk, seed=1), tau=0.1).train()
    adam = optimizer(parameter_groups(model, lr=3e-3, weight_lr=1.0, layers_lr=1.0))
    engine = TorchEngine(model, adam, Ranks())
    curve = train(engine, reader.batches(30), LoopConfig(steps=30, log_every=10), Ranks())
    assert [step for step, _ in curve.points] == [10, 20, 30]
    assert curve.points[-1][1] < curve.points[0][1]


def test_pieces_with_their_words_n_grams_train_and_find_held_out_queries(tmp_path):
    manifest = write_dataset(tmp_path / "datasets" / f"ds={DS}", small_shop(), kind="both")
    settings = config(tmp_path, preset="hybrid-both", epochs=6.0, layers_from=0.5, batch=32)
    fitted = fit(settings, manifest)
    assert fitted.encoder.config.rows == manifest.spec["rows"]
    assert fitted.curve.points[-1][1] < 0.8 * fitted.curve.points[0][1]
    before = evaluate(draw(fitted.encoder.config, settings.seed), settings.dataset, manifest).figures()
    after = evaluate(fitted.encoder, settings.dataset, manifest).figures()
    assert after["valid"]["mrr@10"] > before["valid"]["mrr@10"]


def test_bfloat16_trains_too(shop_root):
    settings = config(shop_root, precision="bf16", epochs=1.0)
    curve = fit(settings, verify(settings.dataset)).curve
    assert np.isfinite([loss for _, loss in curve.points]).all()


@pytest.mark.fault("bad-training")
def test_a_loss_that_is_no_number_stops_before_the_step_and_names_it(shop_root):
    settings = config(shop_root)
    manifest = verify(settings.dataset)
    encoder = draw(settings.chosen_preset(manifest).encoder, seed=1)
    torch.nn.init.constant_(encoder.embeddings.word_embeddings.weight, float("nan"))
    before = parameters(encoder)[-100:].clone()
    engine = TorchEngine(DualEncoder(encoder), torch.optim.SGD(encoder.parameters(), lr=1.0), Ranks())
    reader = TrainingReader(settings.dataset, manifest, ReaderConfig(batch=8), Ranks())
    with pytest.raises(NotFinite, match=r"loss is nan at step 1 of 3 \(rank 0\)"):
        train(engine, reader.batches(3), LoopConfig(steps=3), Ranks())
    assert torch.equal(parameters(encoder)[-100:], before)


@pytest.mark.fault("bad-training")
def test_a_gradient_that_is_no_number_stops_before_the_step_and_names_it(shop_root):
    settings = config(shop_root)
    manifest = verify(settings.dataset)
    encoder = draw(settings.chosen_preset(manifest).encoder, seed=1)
    encoder.embeddings.word_embeddings.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = parameters(encoder).clone()
    engine = TorchEngine(DualEncoder(encoder), torch.optim.SGD(encoder.parameters(), lr=1.0), Ranks())
    reader = TrainingReader(settings.dataset, manifest, ReaderConfig(batch=8), Ranks())
    with pytest.raises(NotFinite, match=r"gradient norm is nan at step 1 of 3 \(rank 0\)"):
        train(engine, reader.batches(3), LoopConfig(steps=3), Ranks())
    assert torch.equal(parameters(encoder), before)


def test_batches_that_end_early_are_an_error(shop_root):
    settings = config(shop_root)
    manifest = verify(settings.dataset)
    encoder = draw(settings.chosen_preset(manifest).encoder, seed=1)
    model = DualEncoder(encoder)
    engine = TorchEngine(model, optimizer(parameter_groups(model, lr=1e-3, weight_lr=1.0, layers_lr=1.0)), Ranks())
    reader = TrainingReader(settings.dataset, manifest, ReaderConfig(batch=8), Ranks())
    with pytest.raises(RuntimeError, match="5 were planned"):
        train(engine, reader.batches(3), LoopConfig(steps=5), Ranks())


def test_training_the_reachable_rows_alone_changes_nothing_in_the_result(shop_root):
    settings = config(shop_root)
    manifest, table = verify(settings.dataset), load_token_table(settings.dataset)
    results = []
    for small in (False, True):
        full = draw(settings.chosen_preset(manifest).encoder, seed=1)
        reader = TrainingReader(settings.dataset, manifest, ReaderConfig(batch=16), Ranks())
        trained, used = full, None
        if small:
            trained, reader.table, used = compact(full, table)
            assert trained.config.rows < full.config.rows
        model = DualEncoder(trained, tau=0.1).train()
        adam = optimizer(parameter_groups(model, lr=1e-3, weight_lr=5.0, layers_lr=0.5))
        engine = TorchEngine(model, adam, Ranks())
        train(engine, reader.batches(5), LoopConfig(steps=5), Ranks())
        results.append(parameters(expand(full, engine.weights(), used)))
    assert torch.allclose(*results, atol=1e-6)


def test_the_learning_rate_rises_then_falls_linearly_to_the_end():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] == pytest.approx(1 / 91)
    assert np.diff(rates[9:]).max() < 0
    assert schedule(0, 1, 0.05) == 1.0


def test_layers_that_join_late_rest_before_and_have_a_schedule_of_their_own():
    loop = LoopConfig(steps=100, layers_from=0.8)
    layers = [rates(step, loop)["layers"] for step in range(100)]
    assert layers[:80] == [0.0] * 80
    assert layers[80] == pytest.approx(0.25)
    assert max(layers) == layers[83] == 1.0
    assert rates(50, loop)["table"] == schedule(50, 100, 0.05)
    assert rates(10, replace(loop, layers_from=0.0))["layers"] == schedule(10, 100, 0.05)


def test_layers_that_join_late_train_in_the_end(shop_root):
    settings = config(shop_root, layers_from=0.7)
    manifest = verify(settings.dataset)
    before, after = draw(settings.chosen_preset(manifest).encoder, 1), fit(settings, manifest).encoder
    assert after.layers_on
    assert after.projection.weight.abs().max() > 0
    assert not torch.equal(before.encoder.layer[0].output.dense.weight, after.encoder.layer[0].output.dense.weight)


def test_progress_says_step_loss_figures_rate_waiting_and_time_left():
    row = {"step": 1200, "loss": 1.834, "gradient_norm": 0.523, "tau": 0.05, "alignment": 0.61, "uniformity": -2.9,
           "false_negatives": 0.012, "pairs_per_s": 41_000.0, "tokens_per_s": 1_230_000.0, "data_wait": 0.06,
           "memory_gb": 2.13}  # fmt: skip
    assert progress_line(row, 8000, eta=340.0) == (
        "step 1200/8000 loss 1.834 grad 0.523 tau 0.050 align 0.61 unif -2.90 false 1.2% pairs/s 41k tokens/s 1.2M data 6% "
        "mem 2.1G eta 6m"
    )
    unknown = {name: value for name, value in row.items() if name != "gradient_norm"}
    assert progress_line(unknown, 8000, eta=60.0).startswith("step 1200/8000 loss 1.834 tau 0.050 ")


def test_lines_of_progress_are_logged_without_a_terminal(shop_root, caplog):
    settings = config(shop_root, log_every=3, epochs=1.0)
    with caplog.at_level(logging.INFO, "model.progress"):
        curve = fit(settings, verify(settings.dataset)).curve
    lines = [r.message for r in caplog.records if r.name == "model.progress"]
    assert len(lines) == len(curve.points)
    assert lines[0].startswith("step 3/")


def test_weights_of_rows_and_layers_have_learning_rates_of_their_own():
    model = DualEncoder(Encoder(replace(PRESETS["tiny"].encoder, token_weights=True)), learn_tau=True)
    groups = {g["name"]: g for g in parameter_groups(model, lr=1.0, weight_lr=5.0, layers_lr=0.25)}
    assert {name: g["lr"] for name, g in groups.items()} == {"table": 1.0, "weights": 5.0, "layers": 0.25}
    assert [len(groups[name]["params"]) for name in ("table", "weights")] == [2, 2]
    assert groups["table"]["params"][1] is model.log_tau
    assert sum(len(g["params"]) for g in groups.values()) == len(list(model.parameters()))


def test_a_learned_temperature_moves_and_stays_within_its_range():
    model = DualEncoder(Encoder(PRESETS["tiny"].encoder), tau=0.012, learn_tau=True)
    adam = torch.optim.SGD([model.log_tau], lr=1.0)
    texts = pack(np.arange(4), np.arange(5), None)
    for slope, expected in ((1.0, 0.01), (1.0, 0.01), (-1.0, 1.0), (-1.0, 1.0)):
        for _ in range(300):
            adam.zero_grad()
            (model(texts)[1] * slope).sum().backward()
            adam.step()
        assert model(texts)[1].item() == pytest.approx(expected, rel=0.05)
    assert "log_tau" not in DualEncoder(Encoder(PRESETS["tiny"].encoder), tau=0.1).state_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"cache_texts": 10},
        {"activation_checkpointing": True},
        {"multi_positives": True, "margin": 0.2, "learn_tau": True},
        {"matryoshka": (4, 8), "cache_texts": 10},
    ],
    ids=str,
)
def test_each_way_to_train_makes_the_loss_fall(shop_root, changes):
    settings = config(shop_root, epochs=6.0, **changes)
    points = fit(settings, verify(settings.dataset)).curve.points
    assert points[-1][1] < 0.9 * points[0][1]


def test_vectors_cut_to_a_trained_dimension_find_more_than_those_of_a_training_for_the_whole(shop_root):
    manifest = verify(config(shop_root).dataset)
    tokenizer, shop = load_tokenizer(config(shop_root).dataset), small_shop()
    gold = [np.array(items) for _, _, items in shop.heldout]
    found = {}
    for dims in ((), (4,)):
        encoder = fit(config(shop_root, epochs=4.0, matryoshka=dims), manifest).encoder
        texts = ([shop.queries[q] for _, q, _ in shop.heldout], list(shop.titles.values()))
        sides = [embed(encoder, *tokenised(tokenizer, part, "title")) for part in texts]
        _, nearest = top_k(*(shortened(vectors, 4, (4,)) for vectors in sides), 100)
        found[dims] = recall(*hits_of(np.array(list(shop.titles))[nearest], gold), 10).mean()
    assert found[4,] > found[()] + 0.05, found


def test_texts_in_parts_have_the_vectors_that_they_have_together():
    encoder = Encoder(replace(PRESETS["tiny"].encoder, rows=60)).double()
    rng = np.random.default_rng(2)
    lengths = rng.integers(0, 6, 11)
    whole = pack(rng.integers(0, 60, lengths.sum()), np.append(0, np.cumsum(lengths)), None)
    parts = whole.parts(4)
    assert [len(part) for part in parts] == [4, 4, 3]
    assert torch.allclose(torch.cat([encoder(part) for part in parts]), encoder(whole), atol=1e-12)


def test_our_deepspeed_settings_are_accepted_and_dangerous_ones_are_not(tmp_path):
    assert deepspeed_settings()["gradient_clipping"] == 0.0
    bad = tmp_path / "bad.json"
    bad.write_text('{"optimizer": {}, "zero_optimization": {"stage": 3}, "gradient_accumulation_steps": 2}')
    with pytest.raises(InputError) as caught:
        deepspeed_settings(bad, cache_texts=64)
    expected = ("would clip at 1.0", "optimizer is set by the job", "must be 1", "set [train] cache_texts")
    for part in (*expected, "stage 3 and cache_texts exclude each other"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match=r"nowhere.json cannot be read"):
        deepspeed_settings(tmp_path / "nowhere.json")


def test_the_precision_is_chosen_by_looking_and_printed(caplog):
    with caplog.at_level(logging.INFO):
        assert choose("auto", "cuda:0") == "bf16"
        assert choose("bf16", "cpu") == "bf16"
        assert choose("auto", "cpu", amx=True) == "bf16"
        assert choose("auto", "cpu", amx=False) == "fp32"
        amx = "amx_bf16" in check_cpu().found
        assert choose("auto", "cpu") == ("bf16" if amx else "fp32")
    for said in ("bf16 on cuda:0 (a GPU)", "bf16 on cpu (AMX)", "fp32 on cpu (no AMX, where bf16 is slower)"):
        assert f"precision {said}" in caplog.text


def test_fp16_is_refused_on_the_cpu_and_has_deepspeeds_loss_scale_on_a_gpu():
    with pytest.raises(InputError, match="precision fp16 on cpu: DeepSpeed has it on GPUs only"):
        choose("fp16", "cpu")
    assert choose("fp16", "cuda:0") == "fp16"
    assert deepspeed_settings(precision="fp16")["fp16"] == {"enabled": True}
    assert "fp16" not in deepspeed_settings(precision="bf16")


def test_a_batch_that_was_asked_for_and_is_larger_than_the_data_is_refused(shop_root):
    manifest = verify(config(shop_root).dataset)
    share = smallest_share(manifest, "pairs", 2)
    require_enough(manifest, share, 2)
    with pytest.raises(InputError, match=rf"batch is {share + 1} pairs a rank, and each of 2 ranks has {share} "):
        require_enough(manifest, share + 1, 2)
    with pytest.raises(InputError, match="batch is 302 pairs a rank, and each of 1 ranks has 301 "):
        fit(config(shop_root, batch=302), manifest)


def test_a_batch_that_was_asked_for_is_kept_where_a_presets_own_is_made_smaller(shop_root):
    manifest = verify(config(shop_root).dataset)
    asked, own = (fit(config(shop_root, preset="bag", batch=n, epochs=1.0), manifest).settings for n in (100, None))
    assert (asked["batch"], asked["steps"]) == (100, 3)
    assert own["batch"] == 301 // 8


@pytest.mark.fault("bad-training")
def test_vectors_that_are_all_alike_stop_the_training_before_the_step(shop_root):
    settings = config(shop_root)
    manifest = verify(settings.dataset)
    encoder = draw(settings.chosen_preset(manifest).encoder, seed=1)
    torch.nn.init.constant_(encoder.embeddings.word_embeddings.weight, 0.1)
    before = parameters(encoder).clone()
    engine = TorchEngine(DualEncoder(encoder, tau=0.1), torch.optim.SGD(encoder.parameters(), lr=1.0), Ranks())
    reader = TrainingReader(settings.dataset, manifest, ReaderConfig(batch=8), Ranks())
    with pytest.raises(Collapsed, match=r"titles have a mean cosine of 1\.0000 at step 1 of 3"):
        train(engine, reader.batches(3), LoopConfig(steps=3), Ranks())
    assert torch.equal(parameters(encoder), before)


def one_step(queries: list[int], titles: list[int], query_group: list[int]) -> Curve:
    """Train on a batch of texts of one token each, those of a title its item group."""
    model = DualEncoder(draw(PRESETS["tiny"].encoder, seed=1), tau=0.1).train()
    adam = optimizer(parameter_groups(model, lr=1e-3, weight_lr=1.0, layers_lr=1.0))
    zeros = np.zeros(len(titles))
    rows = Rows(np.array(query_group), np.array(titles), zeros + 1, zeros, zeros)
    texts = pack(np.array(queries + titles), np.arange(2 * len(titles) + 1), None)
    return train(TorchEngine(model, adam, Ranks()), [Batch(texts, rows)], LoopConfig(steps=1), Ranks())


def test_a_batch_that_shows_one_title_or_one_query_is_no_collapse():
    assert one_step([1, 2, 3, 4], [7, 7, 7, 7], [1, 2, 3, 4]).step == 1
    assert one_step([1, 1, 1, 1], [6, 7, 8, 9], [1, 1, 1, 1]).step == 1


@pytest.mark.fault("bad-training")
def test_queries_that_are_all_alike_stop_the_training_too():
    with pytest.raises(Collapsed, match=r"queries have a mean cosine of 1\.0000 at step 1 of 1"):
        one_step([1, 1, 1, 1], [6, 7, 8, 9], [1, 1, 2, 2])


def test_alignment_and_uniformity_are_those_of_the_paper():
    query, title = (torch.nn.functional.normalize(torch.randn(40, 8), dim=1) for _ in range(2))
    assert alignment(query, title) == pytest.approx(float((query - title).norm(dim=1).square().mean()), rel=1e-5)
    pairs = [(title[i] - title[j]).norm().square() for i in range(40) for j in range(i)]
    assert uniformity(title) == pytest.approx(float(torch.stack(pairs).mul(-2).exp().mean().log()), rel=1e-4)


def test_every_point_of_the_curve_has_its_figures(shop_root):
    settings = config(shop_root, log_every=3, epochs=2.0, learn_tau=True)
    curve = fit(settings, verify(settings.dataset)).curve
    assert [(row["step"], row["loss"]) for row in curve.figures] == curve.points
    last = curve.figures[-1]
    assert last["gradient_norm"] > 0
    assert 0.01 <= last["tau"] <= 1
    assert 0 < last["alignment"] < 4
    assert last["uniformity"] < 0
    assert 0 < last["false_negatives"] < 1
    assert last["tokens_per_s"] > 0
    assert last["memory_gb"] > 0
