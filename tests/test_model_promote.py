import json
import shutil
from dataclasses import asdict, replace

import pytest

from etl.errors import EXIT_BAD_INPUT, EXIT_GATE_REFUSED, EXIT_NOTHING_DUE, EXIT_OK, InputError
from etl.text import Normaliser
from etl.tokenizer import WordHashTokenizer, load_tokenizer, tokenizer_hash
from etl.tokenizer_spec import TokenizerSpec
from etl.warehouse import Warehouse
from labeling.encoding import labelling_bundle
from model import promote, train_due
from model.bundle import (
    CALIBRATION_FILE,
    CANDIDATE,
    CHAMPION,
    add_calibration,
    alias,
    champion,
    load_bundle,
    set_alias,
    write_bundle,
)
from model.encoder import Encoder
from model.evaluate import evaluate
from model.fit import draw, fit
from model.model_card import CARD_FILE
from model.promote import Best, Chance, Difference, PromoteConfig, gate
from model.train_config import TrainConfig
from tests.bundles import bare_bundle
from tests.model_data import DS, small_shop, write_dataset

LIMITS = PromoteConfig(root=".", ds=DS, floor=0.1, tolerance=0.02)
LARGE = Chance(titles=1_000_000, queries=100, mean=0.00001, as_good=0.0)
NAN = float("nan")


def figures(value: float, split: str = "test") -> dict:
    return {split: {"queries": 100, "recall@10": value, "recall@100": 1.0, "mrr@10": value}}


def differing(mean: float, low: float | None, high: float | None) -> Difference:
    return Difference("test", 100, 0.5, mean, low, high)


@pytest.mark.parametrize(
    ("new", "untrained", "old", "reason"),
    [
        (figures(0.5), figures(0.2), {}, None),
        (figures(0.5), figures(0.2), figures(0.51), None),
        (figures(0.5), figures(0.2), figures(0.53), "the champion's of its own day 0.5300"),
        (figures(0.05), figures(0.01), {}, "below the floor 0.1000"),
        (figures(0.3), figures(0.3), {}, "no better than untrained"),
        (figures(1.0), figures(1.0), {}, None),  # words alone find everything: there is nothing to learn
        (figures(0.5, "valid"), figures(0.2, "valid"), {}, None),
        ({}, {}, {}, "no held-out queries"),
    ],
)
def test_the_gate_lets_through_what_is_no_worse(new, untrained, old, reason):
    problems = gate(new, untrained, old, LIMITS, LARGE)
    assert bool(problems) == (reason is not None)
    assert reason is None or reason in problems[0]


@pytest.mark.parametrize(
    ("difference", "reason"),
    [
        (differing(0.1, 0.05, 0.15), None),
        (differing(-0.015, -0.04, 0.001), None),  # behind, but perhaps by chance
        (differing(-0.015, -0.02, -0.01), "differs by -0.0150 (95% interval -0.0200 to -0.0100) from the champion's 0.5000"),
        (differing(-0.03, -0.08, 0.02), "further behind than the tolerance 0.02"),
        (differing(-0.03, None, None), "further behind than the tolerance 0.02"),
        (differing(-0.01, None, None), None),
    ],
)
def test_the_gate_refuses_what_is_far_behind_the_champion_or_surely_behind_it(difference, reason):
    problems = gate(figures(0.5), figures(0.2), {}, LIMITS, LARGE, difference)
    assert len(problems) == (reason is not None)
    assert reason is None or reason in problems[0]


@pytest.mark.fault("bad-training")
@pytest.mark.parametrize(
    ("new", "untrained", "old", "difference", "named"),
    [
        (NAN, 0.2, None, None, "the candidate's"),
        (float("inf"), 0.2, None, None, "the candidate's"),
        (0.5, NAN, None, None, "that of its random start"),
        (0.5, 0.2, NAN, None, "the champion's of its own day"),
        (0.5, 0.2, None, differing(NAN, NAN, NAN), "the difference from it"),
        (NAN, NAN, None, differing(NAN, None, None), "the candidate's, that of its random start, the difference from it"),
    ],
)
def test_a_figure_that_is_no_number_lets_nothing_through(new, untrained, old, difference, named):
    theirs = {} if old is None else figures(old)
    (problem,) = gate(figures(new), figures(untrained), theirs, LIMITS, LARGE, difference)
    assert problem.startswith(f"recall@10 on test is no number ({named})")


@pytest.mark.fault("bad-training")
@pytest.mark.parametrize(
    ("chance", "value", "passes"),
    [
        (Chance(100, 50, 0.1, 0.0), 0.18, False),  # .1, and a tenth of the .9 that are left
        (Chance(100, 50, 0.1, 0.0), 0.2, True),
        (Chance(100, 50, 0.1, 0.02), 0.2, False),
        (Chance(9, 50, 1.0, 1.0), 1.0, False),
    ],
)
def test_a_candidate_must_be_better_than_a_random_ranking_of_as_many_titles(chance, value, passes):
    assert (gate(figures(value), figures(0.1), {}, LIMITS, chance) == []) == passes


@pytest.mark.fault("bad-training")
def test_among_ten_titles_the_gate_says_that_it_cannot_judge_and_what_to_do_and_judges_no_further_where_told():
    everybody = Chance(titles=9, queries=3, mean=1.0, as_good=1.0)
    same = differing(0.0, 0.0, 0.0)
    (problem,) = gate(figures(1.0), figures(1.0), {}, LIMITS, everybody, same)
    assert problem.startswith(
        "recall@10 on test is 1.0000, which 100.0% of random rankings reach with 3 queries among 9 titles (expected at most "
        "1.0%): whether it learnt anything cannot be told"
    )
    assert "[promote] by_chance = 1 lets a shop that is meant to be so small go without" in problem
    unjudged = LIMITS.model_copy(update={"by_chance": 1.0})
    assert gate(figures(1.0), figures(1.0), {}, unjudged, everybody, same) == []


@pytest.fixture(scope="module")
def encoders(shop_root) -> dict[str, Encoder]:
    """One trained, one as it was drawn."""
    settings = TrainConfig(root=str(shop_root), ds=DS, preset="tiny", epochs=6.0)
    manifest = promote.verify(settings.dataset)
    return {"good": fit(settings, manifest).encoder, "bad": draw(settings.chosen_preset(manifest).encoder, 1)}


def lay_down(shop_root, encoder: Encoder, alias: str):
    """A bundle with its true figures, under an alias."""
    warehouse = Warehouse.at(str(shop_root))
    dataset = warehouse.dataset(DS)
    manifest = promote.verify(dataset)
    heldout = evaluate(encoder, dataset, manifest).figures()
    untrained = evaluate(draw(encoder.config, 1), dataset, manifest).figures()
    path = write_bundle(
        warehouse.bundles,
        encoder,
        load_tokenizer(dataset),
        ds=DS,
        metrics={"heldout": heldout, "untrained": untrained},
        lineage={"dataset": str(DS), "dataset_digest": manifest.digest},
    )
    add_calibration(path, {})
    set_alias(warehouse, alias, path)
    return path


def run(shop_root, *more: str) -> int:
    return promote.main(["--root", str(shop_root), "--ds", str(DS), *more])


def test_a_candidate_that_was_not_calibrated_is_refused(shop_root, encoders, capfd):
    path = lay_down(shop_root, encoders["good"], CANDIDATE)
    (path / CALIBRATION_FILE).unlink()
    assert run(shop_root) == EXIT_BAD_INPUT
    assert f"candidate {path.name} has no probabilities yet: run `labeller calibrate --ds {DS}`" in capfd.readouterr().err


@pytest.mark.fault("bad-training")
def test_a_worse_candidate_is_not_promoted_and_the_champion_stays(shop_root, encoders, caplog):
    good = lay_down(shop_root, encoders["good"], CANDIDATE)
    assert run(shop_root) == EXIT_OK
    assert champion(Warehouse.at(str(shop_root))) == good
    bad = lay_down(shop_root, encoders["bad"], CANDIDATE)
    assert run(shop_root) == EXIT_NOTHING_DUE
    assert champion(Warehouse.at(str(shop_root))) == good
    assert f"candidate {bad.name} is not promoted" in caplog.text
    assert "no better than untrained" in caplog.text
    assert f"champion {good.name} stays" in caplog.text
    refused = json.loads((shop_root / "bundles" / "candidate.json").read_text())["refused"]
    assert "no better than untrained" in refused[0]
    assert "Passed, on the held-out queries" in (good / CARD_FILE).read_text()
    assert f"- {refused[0]}" in (bad / CARD_FILE).read_text()


def test_candidate_and_champion_answer_the_same_queries_and_the_difference_is_kept(shop_root, encoders, caplog):
    bad, good = lay_down(shop_root, encoders["bad"], CHAMPION), lay_down(shop_root, encoders["good"], CANDIDATE)
    with caplog.at_level("INFO"):
        assert run(shop_root) == EXIT_OK
    compared = json.loads((shop_root / "bundles" / "champion.json").read_text())["compared"]
    recall = [load_bundle(path).metrics["heldout"]["test"]["recall@10"] for path in (good, bad)]
    assert compared["mean"] == pytest.approx(recall[0] - recall[1], abs=1e-5)
    assert (compared["bundle"], compared["queries"], compared["champion"]) == (bad.name, 4, recall[1])
    assert compared["low"] <= compared["mean"] <= compared["high"]
    assert (
        f"candidate {good.name} beside champion {bad.name}: recall@10 on the same 4 queries of test differs" in caplog.text
    )
    lay_down(shop_root, encoders["bad"], CANDIDATE)
    assert run(shop_root) == EXIT_NOTHING_DUE
    refused = json.loads((shop_root / "bundles" / "candidate.json").read_text())
    assert refused["compared"]["mean"] == pytest.approx(recall[1] - recall[0], abs=1e-5)
    assert "further behind than the tolerance 0.02" in refused["refused"][-1]


@pytest.mark.fault("bad-training")
def test_a_first_candidate_that_learnt_nothing_is_refused_since_nothing_else_can_label(shop_root, encoders, capsys):
    (shop_root / "bundles" / "champion.json").unlink(missing_ok=True)
    lay_down(shop_root, encoders["bad"], CANDIDATE)
    assert run(shop_root) == EXIT_GATE_REFUSED
    assert champion(Warehouse.at(str(shop_root))) is None
    assert "there is no champion to label with" in capsys.readouterr().err


def test_a_candidate_of_another_day_is_refused_since_it_answered_other_queries(shop_root, encoders, capsys):
    lay_down(shop_root, encoders["good"], CANDIDATE)
    assert promote.main(["--root", str(shop_root), "--ds", "2024-05-20"]) == EXIT_BAD_INPUT
    assert f"run `labeller promote --ds {DS}`" in capsys.readouterr().err


def test_promoting_the_champion_again_changes_nothing(shop_root, encoders):
    good = lay_down(shop_root, encoders["good"], CANDIDATE)
    assert [run(shop_root), run(shop_root)] == [EXIT_OK, EXIT_OK]
    assert champion(Warehouse.at(str(shop_root))) == good


def test_a_champion_of_another_tokenizer_is_compared_by_the_figures_of_its_own_day(shop_root, encoders, tmp_path, caplog):
    other = WordHashTokenizer(TokenizerSpec(rows=2**12, ngrams=(2,), normaliser=Normaliser().hash))
    metrics = {"heldout": figures(0.7)}
    foreign = load_bundle(write_bundle(tmp_path, encoders["bad"], other, ds=DS, metrics=metrics, lineage={}))
    dataset, new = Warehouse.at(str(shop_root)).dataset(DS), load_bundle(lay_down(shop_root, encoders["good"], CANDIDATE))
    assert promote.compare(new, foreign, dataset, promote.own_dataset(new, dataset)) == (None, figures(0.7))
    assert f"champion {foreign.id} has another tokenizer" in caplog.text


@pytest.mark.fault("model-damaged")
@pytest.mark.parametrize("lineage", [{"dataset_digest": "0123456789abcdef"}, {}])
def test_a_candidate_of_another_dataset_of_the_same_day_and_tokenizer_is_refused(shop_root, encoders, tmp_path, lineage):
    new = load_bundle(lay_down(shop_root, encoders["good"], CANDIDATE))
    rebuilt = tmp_path / f"ds={DS}"
    manifest = write_dataset(rebuilt, small_shop(seed=1))
    assert manifest.tokenizer == tokenizer_hash(new.path)
    cure = f"built or mined again since, so run `labeller train --ds {DS}` again"
    with pytest.raises(InputError, match=f"digest [0-9a-f]{{12}}, {rebuilt} has {manifest.digest[:12]}: it was {cure}"):
        promote.own_dataset(new, rebuilt)
    unknown = replace(new, manifest=new.manifest | {"lineage": lineage})
    with pytest.raises(InputError, match=f"digest {lineage.get('dataset_digest', 'None')[:12]}, .*{cure}"):
        promote.own_dataset(unknown, Warehouse.at(str(shop_root)).dataset(DS))


def test_a_champion_a_little_behind_the_last_one_each_week_is_warned_of_when_it_is_far_behind_the_best(
    shop_root, encoders, caplog
):
    warehouse, path = Warehouse.at(str(shop_root)), lay_down(shop_root, encoders["good"], CHAMPION)
    bundle, slid = load_bundle(path), []
    for week, recall in enumerate((0.5, 0.492, 0.484, 0.476, 0.47)):  # each less than the tolerance of .02 behind
        caplog.clear()
        new = replace(bundle, id=f"week{week}", metrics={"heldout": figures(recall)})
        best = promote.best_of(warehouse, new, PromoteConfig(root=str(shop_root), ds=DS))
        set_alias(warehouse, CHAMPION, path, best=asdict(best if week else Best("week0", str(DS), "test", recall)))
        slid.append("SLIDING" in caplog.text)
    assert slid[1:] == [False, False, True, True]
    assert f"week4 is 0.4700, and was 0.5000 with champion week0 of {DS}" in caplog.text
    assert "delete `best` from" in caplog.text


def test_the_best_champion_is_kept_beside_the_alias_until_a_better_one_comes(shop_root, encoders, caplog):
    warehouse = Warehouse.at(str(shop_root))
    bad, good = lay_down(shop_root, encoders["bad"], CHAMPION), lay_down(shop_root, encoders["good"], CANDIDATE)
    recall = load_bundle(good).metrics["heldout"]["test"]["recall@10"]
    assert run(shop_root) == EXIT_OK
    assert alias(warehouse, CHAMPION)["best"] == {"bundle": good.name, "ds": str(DS), "split": "test", "value": recall}
    assert "SLIDING" not in caplog.text
    better = asdict(Best("gone", "2024-01-01", "test", recall + 0.03))
    set_alias(warehouse, CHAMPION, bad, best=better)
    assert run(shop_root) == EXIT_OK
    assert alias(warehouse, CHAMPION)["best"] == better
    assert f"SLIDING: recall@10 on test of the new champion {good.name} is" in caplog.text
    set_alias(warehouse, CHAMPION, bad, best=better | {"split": "valid"})  # says nothing of test
    assert run(shop_root) == EXIT_OK
    assert alias(warehouse, CHAMPION)["best"]["bundle"] == good.name


def test_without_a_candidate_or_with_an_alias_that_points_nowhere_there_is_one_message(root, capsys):
    assert run(root) == EXIT_BAD_INPUT
    assert "has no candidate: run `labeller train` first" in capsys.readouterr().err
    (root / "bundles").mkdir()
    (root / "bundles" / "candidate.json").write_text('{"bundle": "gone"}')
    assert run(root) == EXIT_BAD_INPUT
    assert "points to bundle 'gone', which is not there" in capsys.readouterr().err


def due(root, ds: str, *more: str) -> int:
    return train_due.main(["--root", str(root), "--ds", ds, *more])


def test_training_is_due_without_a_champion_or_when_it_is_old_or_forced(root, encoders, shop_root):
    assert due(root, "2024-05-07") == EXIT_OK
    bare_bundle(root, "b1")
    (root / "bundles" / "champion.json").write_text(json.dumps({"bundle": "b1", "ds": "2024-05-07"}))
    assert due(root, "2024-05-08") == EXIT_NOTHING_DUE
    assert due(root, "2024-05-14") == EXIT_OK
    assert due(root, "2024-05-14", "--max-age-days", "8") == EXIT_NOTHING_DUE
    assert due(root, "2024-05-08", "--force") == EXIT_OK
    assert due(root, "2024-01-01") == EXIT_NOTHING_DUE


def test_a_refused_candidate_counts_as_a_training_until_it_is_old_itself(root):
    bare_bundle(root, "b1")
    (root / "bundles" / "champion.json").write_text(json.dumps({"bundle": "b1", "ds": "2024-05-07"}))
    candidate = root / "bundles" / "candidate.json"
    candidate.write_text(json.dumps({"bundle": "b2", "ds": "2024-05-14"}))
    assert due(root, "2024-05-15") == EXIT_OK  # it was never judged
    candidate.write_text(json.dumps({"bundle": "b2", "ds": "2024-05-14", "refused": ["worse"]}))
    assert due(root, "2024-05-15") == EXIT_NOTHING_DUE
    assert due(root, "2024-05-21") == EXIT_OK


@pytest.mark.parametrize(
    ("flags", "trained"),
    [
        (["--simplified-chinese"], {"simplified_chinese": True}),
        (["--product-text", "{title} {x}"], {"product_text": "{title} {x}"}),
    ],
)
def test_training_is_due_when_the_champion_has_other_text_settings_until_it_was_tried(root, flags, trained, caplog):
    bare_bundle(root, "b1")
    bare_bundle(root, "b2", **trained)
    (root / "bundles" / "champion.json").write_text(json.dumps({"bundle": "b1", "ds": "2024-05-07"}))
    assert due(root, "2024-05-08") == EXIT_NOTHING_DUE
    with caplog.at_level("INFO"):
        assert due(root, "2024-05-08", *flags) == EXIT_OK
    assert "the champion was trained with {'simplified_chinese': False, 'product_text': '{title}'}" in caplog.text
    assert due(root, "2024-05-06", *flags) == EXIT_NOTHING_DUE
    candidate = root / "bundles" / "candidate.json"
    candidate.write_text(json.dumps({"bundle": "b2", "ds": "2024-05-08", "refused": ["worse"]}))
    assert due(root, "2024-05-09", *flags) == EXIT_NOTHING_DUE
    assert due(root, "2024-05-15", *flags) == EXIT_OK


def test_a_champion_that_points_nowhere_is_no_reason_to_train(root, capsys):
    (root / "bundles").mkdir()
    (root / "bundles" / "champion.json").write_text('{"bundle": "gone", "ds": "2024-05-07"}')
    assert due(root, "2024-05-08") == EXIT_BAD_INPUT
    assert "points to bundle 'gone'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"form": 1}, "bundle format 1, this version reads 2"),
        ({"normaliser": "old"}, "made with text normaliser old"),
        ({"encoder": {"mixture": 8}}, "encoder config has unknown fields ['mixture']: a newer version"),
    ],
)
def test_training_is_due_at_once_where_the_champion_is_of_another_contract(root, other, reason, caplog):
    bare_bundle(root, "b1", **other)
    (root / "bundles" / "champion.json").write_text(json.dumps({"bundle": "b1", "ds": "2024-05-07"}))
    refused = {"bundle": "b1", "ds": "2024-05-07", "refused": ["worse"]}
    (root / "bundles" / "candidate.json").write_text(json.dumps(refused))
    with caplog.at_level("INFO"):
        assert due(root, "2024-05-08") == EXIT_OK
    assert "the champion cannot label: " in caplog.text
    assert reason in caplog.text


def of_format_1(path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))


@pytest.mark.fault("model-damaged")
def test_a_champion_of_another_format_labels_nothing_and_says_what_to_do(shop_root, encoders):
    path = lay_down(shop_root, encoders["bad"], CHAMPION)
    of_format_1(path)
    with pytest.raises(InputError, match=r"bundle format 1, this version reads 2: train again \(`labeller train`"):
        load_bundle(labelling_bundle(Warehouse.at(str(shop_root)), ""))
    shutil.rmtree(path)


def test_a_candidate_replaces_a_champion_of_another_format_only_by_its_own_worth(shop_root, encoders, capsys, caplog):
    old = lay_down(shop_root, encoders["bad"], CHAMPION)
    good = lay_down(shop_root, encoders["good"], CANDIDATE)
    of_format_1(old)
    assert run(shop_root, "--floor", "1") == EXIT_GATE_REFUSED
    assert "there is no champion to label with" in capsys.readouterr().err
    assert run(shop_root) == EXIT_OK
    assert "the champion cannot label and counts as none" in caplog.text
    assert champion(Warehouse.at(str(shop_root))) == good


def test_a_damaged_champion_is_no_reason_to_train(root, capsys):
    bare_bundle(root, "b1")
    (root / "bundles" / "champion.json").write_text(json.dumps({"bundle": "b1", "ds": "2024-05-07"}))
    (root / "bundles" / "b1" / "encoder.json").unlink()
    assert due(root, "2024-05-08") == EXIT_BAD_INPUT
    assert "is missing (no encoder.json)" in capsys.readouterr().err
