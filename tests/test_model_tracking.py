"""A training's figures in TensorBoard's event files and in MLflow, read back by their own readers."""

import logging
import math
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from etl.dataset import verify
from etl.errors import EXIT_BAD_INPUT, InputError
from model import tracking, train, worker
from model.fit import fit
from model.tracking import MLflow, TensorBoard, closing_trackers
from model.train_config import TrainConfig
from tests.model_data import DS, small_shop, write_dataset
from tests.trainings import CutOff, stopping_after

FIGURES = {
    "loss", "gradient_norm", "tau", "alignment", "uniformity", "false_negatives", "tokens_per_s", "pairs_per_s", "data_wait",
    "memory_gb",
}  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> TrainConfig:
    root = tmp_path_factory.mktemp("shop")
    write_dataset(root / "datasets" / f"ds={DS}", small_shop())
    return TrainConfig(root=str(root), ds=DS, preset="tiny", epochs=2.0, log_every=3, save_every=6)


@pytest.fixture
def uri(tmp_path, monkeypatch) -> str:
    """A store of files: the database and the server are in the whole of MLflow only."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlflow").as_uri()


def events(directory: Path) -> EventAccumulator:
    return EventAccumulator(str(directory)).Reload()


def run_of(uri: str):
    """The only run, and its client."""
    from mlflow import MlflowClient  # after the tracker, which has switched its telemetry off

    client = MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id])
    return found, client


def train_in_two_pieces(settings, checkpoints: Path, monkeypatch, trackers) -> list[int]:
    """Stop after the checkpoint of step 6 and three more steps, then go on; returns the steps that have figures."""
    with monkeypatch.context() as patch, closing_trackers(first := trackers()):
        stopping_after(patch, steps=9)
        with pytest.raises(CutOff):
            fit(settings, verify(settings.dataset), checkpoints=checkpoints, trackers=first)
    with closing_trackers(second := trackers()):
        return [step for step, _ in fit(settings, verify(settings.dataset), None, "cpu", checkpoints, second).curve.points]


def test_the_event_file_has_every_figure_of_every_logged_step(settings, tmp_path):
    with closing_trackers([board := TensorBoard(tmp_path)]):
        curve = fit(settings, verify(settings.dataset), trackers=[board]).curve
    found = events(tmp_path)
    assert set(found.Tags()["scalars"]) == FIGURES
    for name in FIGURES:
        written = [(event.step, pytest.approx(event.value, rel=1e-5)) for event in found.Scalars(name)]
        assert [(row["step"], row[name]) for row in curve.figures] == written


def test_a_training_that_goes_on_continues_its_event_files_with_each_step_once(settings, tmp_path, monkeypatch):
    board = tmp_path / "board"
    steps = train_in_two_pieces(settings, tmp_path / "checkpoints", monkeypatch, lambda: [TensorBoard(board)])
    assert [event.step for event in events(board).Scalars("loss")] == steps
    assert len(list(board.iterdir())) == 2


def test_a_fresh_training_replaces_the_event_files_of_the_one_before(settings, tmp_path):
    for value in (1.0, 2.0):
        board = TensorBoard(tmp_path)
        board.open(0, {}, {})
        board.log(1, {"loss": value})
        board.close(failed=False)
    assert [event.value for event in events(tmp_path).Scalars("loss")] == [2.0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard writes in a thread
@pytest.mark.fault("disk-full")
def test_a_disk_that_is_full_is_a_single_warning_and_the_training_goes_on(tmp_path, caplog):
    board = TensorBoard(tmp_path)
    board.open(0, {}, {})
    board.log(1, {"loss": 1.0})
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING):
        for step in range(2, 6):
            board.log(step, {"loss": 1.0})
        board.close(failed=False)
    (said,) = caplog.messages
    assert "no figures to TensorBoard from step" in said
    assert "No space left on device" in said


def test_mlflow_has_the_settings_and_every_figure_and_how_it_ended(settings, uri):
    with closing_trackers([server := MLflow(uri, "tiny")]):
        fitted = fit(settings, verify(settings.dataset), trackers=[server])
    found, client = run_of(uri)
    assert (found.info.run_name, found.info.status) == ("tiny", "FINISHED")
    assert found.data.params == {name: str(value) for name, value in fitted.settings.items()}
    assert set(found.data.metrics) == FIGURES
    history = [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "gradient_norm")]
    assert history == [(row["step"], row["gradient_norm"]) for row in fitted.curve.figures]


def test_a_training_that_goes_on_continues_its_mlflow_run(settings, uri, tmp_path, monkeypatch):
    steps = train_in_two_pieces(settings, tmp_path / "checkpoints", monkeypatch, lambda: [MLflow(uri, "tiny")])
    found, client = run_of(uri)
    assert found.info.status == "FINISHED"
    assert {metric.step for metric in client.get_metric_history(found.info.run_id, "loss")} == set(steps)


def test_a_training_that_fails_is_a_failed_run(settings, uri, tmp_path, monkeypatch):
    stopping_after(monkeypatch, steps=4)
    server = MLflow(uri, "tiny")
    with pytest.raises(CutOff), closing_trackers([server]):
        fit(settings, verify(settings.dataset), trackers=[server])
    assert run_of(uri)[0].info.status == "FAILED"


def test_a_server_that_cannot_be_reached_is_refused_before_the_training(settings, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert train.main(["--root", settings.root, "--ds", str(DS), "--preset", "tiny"]) == EXIT_BAD_INPUT
    assert "MLflow at http://127.0.0.1:9 cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    "uri", ["https://me:secret@host", "https://secret@host:5000/x", "https://host/?token=secret", "https://me:sec[ret@host"]
)
@pytest.mark.fault("secrets")
def test_credentials_in_the_address_of_the_server_are_refused_and_not_said(settings, monkeypatch, capfd, uri):
    with pytest.raises(ValidationError, match="the MLflow server's address") as error:
        TrainConfig(root=".", ds=DS, mlflow_tracking_uri=uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert train.main(["--root", settings.root, "--ds", str(DS), "--preset", "tiny"]) == EXIT_BAD_INPUT
    said = capfd.readouterr().err
    assert "the MLflow server's address" in said
    assert not any(secret in said + str(error.value) for secret in (uri, "secret"))


@pytest.mark.fault("secrets")
def test_a_rank_refuses_settings_that_cannot_be_used_without_saying_them(tmp_path, caplog):
    file = tmp_path / "settings.json"
    file.write_text('{"root": ".", "ds": "2024-05-07", "mlflow_tracking_uri": "https://me:secret@host"}')
    assert worker.main(["--settings", str(file)]) == EXIT_BAD_INPUT
    refused = (tmp_path / worker.REFUSED_FILE).read_text()
    assert "mlflow_tracking_uri" in refused
    assert "secret" not in refused + caplog.text


def test_a_server_that_fails_later_is_a_single_warning_and_gets_its_figures_when_it_is_back(
    uri, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.0)
    server = MLflow(uri, "tiny")
    server.open(0, {}, {"preset": "tiny"})
    (tmp_path / "mlflow").rename(tmp_path / "away")
    with caplog.at_level(logging.WARNING):
        server.log(1, {"loss": 3.0})
        server.log(2, {"loss": 2.0})
    assert [record.message for record in caplog.records if "took no figures" in record.message] == [caplog.messages[0]]
    shutil.rmtree(tmp_path / "mlflow", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "mlflow")
    server.log(3, {"loss": math.nan})
    server.close(failed=False)
    found, client = run_of(uri)
    assert [metric.step for metric in client.get_metric_history(found.info.run_id, "loss")] == [1, 2, 3]


def test_figures_that_never_arrive_are_counted_in_a_warning(uri, tmp_path, caplog):
    server = MLflow(uri, "tiny")
    server.open(0, {}, {})
    shutil.rmtree(tmp_path / "mlflow")
    with caplog.at_level(logging.WARNING):
        server.log(1, {"loss": 3.0, "tau": 0.1})
        server.close(failed=False)
    assert "2 figures did not reach MLflow" in caplog.text


def test_a_run_that_the_server_lost_is_refused(uri, tmp_path):
    MLflow(uri, "tiny").experiment()
    with pytest.raises(InputError, match="refuses the run 0123"):
        MLflow(uri, "tiny").open(6, {f"mlflow {uri}": "0123"}, {})
