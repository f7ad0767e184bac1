"""One task of a DAG is one command of the ``labeller``: how it is told what to do, and what becomes of its exit code.

No shell is involved: a parameter of a run is one word of the command, whatever characters it holds.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import Asset, BaseOperator, DeadlineAlert, DeadlineReference, Param, SyncCallback
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from labeller_alerts import Alert

CHECKOUT = Path(__file__).resolve().parent.parent
# The console command of the jobs' environment, which cannot be Airflow's own (pandas 3, another pyspark).
LABELLER = os.environ.get("LABELLER_BIN", str(CHECKOUT / ".venv" / "bin" / "labeller"))
ROOT = os.environ.get("LABELLER_ROOT", str(CHECKOUT / "warehouse" / "sample"))
# Shared by all DAGs: a slot is one Spark driver ([spark] driver_memory, 4 GB by default), so slots are days side by side.
POOL = os.environ.get("LABELLER_POOL", "labelling")
ALERTS = os.environ.get("LABELLER_ALERTS", "labeller_alerts")

NOTHING_DUE = 99
FINAL = {2: "bad input", 3: "a gate refused, and what is live stays live"}
"""Exit codes that the same command would end with again, until a person has looked."""

DAY = (
    "{{ params.ds or (data_interval_start if data_interval_start is defined and data_interval_start"
    " else dag_run.run_after - macros.timedelta(days=1)) | ds }}"
)
"""Day of a run: the one that is asked for, that of the data interval, or (of a run without one) the day before it starts."""

DEADLINE_HOURS = float(os.environ.get("LABELLER_DEADLINE_HOURS", "8"))
"""Hours after which somebody is told that a run is not done: a night begins at midnight and is wanted by 8. 0: nobody is."""

MOST_RETRIES = int(os.environ.get("LABELLER_RETRIES", "99"))  # `make nightly` sets 0: who watches wants the error now
RETRY_MINUTES = float(os.environ.get("LABELLER_RETRY_MINUTES", "5"))


def retries(count: int) -> dict[str, Any]:
    """Arguments of a task that may be tried ``count`` more times: after 5 minutes, then 10, 20, at most 30.

    Five minutes outlive the lease of a host that is gone (three to five) and most restarts of a store.
    """
    return {
        "retries": min(count, MOST_RETRIES),
        "retry_delay": dt.timedelta(minutes=RETRY_MINUTES),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": dt.timedelta(minutes=30),
    }


# Stages write a day by one commit and write the same rows again, so trying again costs time only. What it is good for: an
# executor or a node that is lost, a store that refuses for a moment, another writer of the same day (exit code 75).
DEFAULT_ARGS = {"pool": POOL, "on_failure_callback": Alert(ALERTS), **retries(2)}

ROOT_PARAM = Param(
    ROOT,
    type="string",
    pattern=r"^(/|[a-z][a-z0-9+.-]*://)[^\x00-\x1f]*$",  # absolute: Airflow runs each task in a directory of its own
    description="Warehouse: directory with the four input tables.",
)

LABEL_TABLES = ("labels_current", "item_terms", "item_categories", "label_changes", "annotation_sample")
RELATED_TABLES = ("similar_items", "query_items", "copy_keywords", "category_mismatch", "term_candidates")


def assets(*tables: str) -> list[Asset]:
    """Assets by the names of the warehouse's tables; which warehouse and day an event is of, its extra says."""
    return [Asset(name=table, group="labelling") for table in tables]


def deadline(hours: float) -> DeadlineAlert | None:
    """Tell somebody when a run is not done so many hours after it was due or asked for; None where that is 0.

    Counted from the queue, since the logical date of a backfilled run is long past. ``airflow dags test`` watches no
    deadline, and in 3.3.2 ends a run that went well with an error of its own if its DAG has one: give it 0.
    """
    if not hours:
        return None
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=dt.timedelta(hours=hours),
        callback=SyncCallback(Alert, kwargs={"connection": ALERTS}),
    )


class LabellerOperator(BaseOperator):
    """Run ``labeller COMMAND --NAME=VALUE …`` and end as its exit code says.

    Args:
        command: Subcommand, with its action where it has one (``backfill plan``).
        flags: Flag -> value. None and "" leave the flag out, so that the warehouse's own setting holds; true and false are
            ``--name`` and ``--no-name``; a list repeats the flag.
        more: The same for a task that is mapped over days.
        only_if: Whether there is anything to do; else the task is skipped.
        of_output: What to make of the last line for tasks that follow; None keeps nothing.
        kwargs: As of every operator. ``outlets`` are told ``root`` and ``ds`` with their event.
    """

    template_fields: Sequence[str] = ("flags", "more", "only_if")
    template_fields_renderers = {"flags": "json", "more": "json"}
    ui_color = "#e8f1e4"

    def __init__(
        self,
        *,
        command: str,
        flags: Mapping[str, Any],
        more: Any = None,
        only_if: Any = True,
        of_output: Callable[[str], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.flags = flags
        self.more = more
        self.only_if = only_if
        self.of_output = of_output
        self.hook = SubprocessHook()

    @property
    def argv(self) -> list[str]:
        """The words of the command; of a task whose fields are rendered."""
        given = {**self.flags, **(self.more or {})}
        return [LABELLER, *self.command.split(), *(word for name in given for word in _words(name, given[name]))]

    @property
    def day(self) -> str:
        """The day that the command works for."""
        return {**self.flags, **(self.more or {})}.get("ds") or self.more["to"]

    def execute(self, context: Any) -> Any:
        if str(self.only_if) != "True":
            raise AirflowSkipException(f"labeller {self.command} is not asked for")
        code, last = self.hook.run_command(self.argv)
        if code == NOTHING_DUE:
            raise AirflowSkipException(f"labeller {self.command}: nothing due")
        if code in FINAL:
            raise AirflowFailException(f"labeller {self.command} ended with {code} ({FINAL[code]}): the log above says why")
        if code != 0:
            raise AirflowException(f"labeller {self.command} ended with {code}: the log above says why")
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"root": self.flags["root"], "ds": self.day}
        return self.of_output(last) if self.of_output else None

    def on_kill(self) -> None:
        """Called at the time-out too; the command ends all that it started."""
        self.hook.send_sigterm()


def _words(name: str, value: Any) -> list[str]:
    """``--name=value`` as one word each: a value that looks like a flag is a value."""
    if value is None or value == "":
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [f"--{name}={entry}" for entry in value]
    return [f"--{name}={value}"]


def days_to_make(line: str) -> list[dict[str, str]]:
    """Last line of ``backfill plan --json`` -> the days that are to be made, in their order, those that cannot be too.

    Each with the bundle of the plan: what is compared and then published is made with it, whatever is promoted meanwhile.

    Raises:
        AirflowException: it is no plan.
    """
    try:
        return [
            {"from": day["ds"], "to": day["ds"]} | ({"bundle": day["bundle"]} if day["bundle"] else {})
            for day in json.loads(line)
            if day["stages"] or day["problem"]
        ]
    except (ValueError, TypeError, KeyError):
        raise AirflowException(f"backfill plan ended with {line[:200]!r} (expected a JSON array of days)") from None
