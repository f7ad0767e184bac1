"""Where a training's figures go beside its log: TensorBoard event files, and an MLflow server where one is named.

Figures are lost before a training is: a tracker that fails once the steps run only warns.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from etl.errors import InputError

log = logging.getLogger(__name__)

EXPERIMENT = "labeller train"
"""In MLflow, unless MLFLOW_EXPERIMENT_NAME says another."""
RETRY_SECONDS = 60.0
"""After a failure; each try of a server that is gone costs a step some 20 s."""
_VARIABLES = {
    # Its own are 120 s and 7 tries, for which all other ranks would wait.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    # It would tell its makers of each call.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Of MLflow, where the environment has no others."""
_MOST = 1000  # metrics that MLflow takes at once


class Tracker(Protocol):
    """Gets a training's figures, on rank 0."""

    def open(self, step: int, names: dict[str, str], settings: Mapping[str, Any]) -> None:
        """Before the first step.

        Args:
            step: Steps that were taken before; figures of later ones are void.
            names: Kept in the training's checkpoints: where a tracker leaves what it finds its run by when that goes on.
            settings: Of the training.

        Raises:
            InputError: it cannot be reached.
        """

    def log(self, step: int, figures: Mapping[str, float]) -> None: ...
    def close(self, *, failed: bool) -> None: ...


def require_no_credentials(uri: str) -> None:
    """Refuse the address of a server that would carry a password into logs and settings.

    Raises:
        InputError: it does, or is no address; without saying it.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise InputError("the MLflow server's address is none (expected https://HOST or https://HOST:PORT)") from None
    if "@" in parts.netloc or parts.query:
        raise InputError(
            f"the MLflow server's address ({parts.hostname}) holds a user, a password or a query, which would be logged: "
            "set MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN, instead"
        )


@contextmanager
def closing_trackers(trackers: Sequence[Tracker]) -> Iterator[None]:
    """Close them at the end, and say whether it was one with an error."""
    failed = True
    try:
        yield
        failed = False
    finally:
        for tracker in trackers:
            tracker.close(failed=failed)


class TensorBoard:
    """Event files in a directory, those of the last training there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writer: Any = None

    def open(self, step: int, names: dict[str, str], settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second

        if not step:
            for old in self.directory.glob("events.out.tfevents.*"):
                old.unlink()
        self._writer = SummaryWriter(str(self.directory), purge_step=step + 1 if step else None)
        self._writer.add_text("settings", f"```\n{json.dumps(settings, indent=1)}\n```", step)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if self._writer is None:
            return
        try:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()  # what a killed process held back would be missing when it goes on
        except OSError as error:
            log.warning("no figures to TensorBoard from step %d on: %s", step, error)
            self._writer = None

    def close(self, *, failed: bool) -> None:
        if self._writer is not None:
            self._writer.close()


class MLflow:
    """A run on a tracking server; figures that do not reach it are sent with later ones."""

    def __init__(self, uri: str, name: str) -> None:
        """Of a server.

        Args:
            uri: Its address; credentials are MLflow's environment variables.
            name: Of the run.

        Raises:
            InputError: the address holds credentials.
        """
        require_no_credentials(uri)
        for variable, value in _VARIABLES.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient  # takes seconds
        from mlflow.exceptions import MlflowException

        self.uri, self.name, self.run_id = uri, name, ""
        self._connect, self._errors = MlflowClient, (MlflowException, OSError)
        self._pending: list[Any] = []
        self._next_try = 0.0
        self._failed = False

    def experiment(self) -> str:
        """The id of the experiment, which is made if it is not there.

        Raises:
            InputError: the server cannot be reached, or refuses.
        """
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        try:
            self._client = self._connect(tracking_uri=self.uri)
            found = self._client.get_experiment_by_name(name)
            return str(found.experiment_id if found else self._client.create_experiment(name))
        except self._errors as error:
            raise InputError(
                f"MLflow at {self.uri} cannot be used: {_first_line(error)} (expected a tracking server): "
                "mend it, or unset [train] mlflow_tracking_uri and MLFLOW_TRACKING_URI"
            ) from None

    def open(self, step: int, names: dict[str, str], settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        experiment, key = self.experiment(), f"mlflow {self.uri}"
        try:
            if key in names:
                self._client.update_run(names[key], status="RUNNING")
            else:
                names[key] = self._client.create_run(experiment, run_name=self.name).info.run_id
                self._client.log_batch(names[key], params=[Param(k, str(v)) for k, v in settings.items()])
        except self._errors as error:
            raise InputError(f"MLflow at {self.uri} refuses the run {names.get(key, '')}: {_first_line(error)}") from None
        self.run_id = names[key]

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(name, value, now, step) for name, value in figures.items()]
        if time.monotonic() >= self._next_try:
            self._send()

    def close(self, *, failed: bool) -> None:
        if not self.run_id:
            return
        self._send()
        try:
            self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")
        except Exception as error:  # as above
            log.warning("MLflow at %s was not told that run %s ended: %s", self.uri, self.run_id, _first_line(error))
        if self._pending:
            log.warning("%d figures did not reach MLflow at %s; TensorBoard's files have them", len(self._pending), self.uri)

    def _send(self) -> None:
        try:
            while self._pending:
                self._client.log_batch(self.run_id, metrics=self._pending[:_MOST])
                del self._pending[:_MOST]
        except Exception as error:  # MLflow's store of files raises no narrower one; and figures must not end a training
            self._next_try = time.monotonic() + RETRY_SECONDS
            if not self._failed:
                self._failed = True
                log.warning("MLflow at %s took no figures, trying on: %s", self.uri, _first_line(error))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
