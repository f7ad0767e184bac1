"""Label the whole catalogue for one day, from its click log.

Every task is one command of the jobs' environment and also runs by hand; this file only wires them.

| group | what it does | when it is skipped |
|---|---|---|
| `sample` | generates a warehouse to play with | unless the parameter `sample` is set |
| `etl` | checks the inputs, then clicks -> pairs | never |
| `model` | pairs -> dataset -> encoder -> calibration -> champion | while the champion is young and knows the words |
| `labeling` | catalogue -> embeddings -> terms and categories, audit -> publish -> further tables, report | never |

Exit code 99 of a command means "nothing due" and shows as skipped; any other non-zero code fails the task, and 2 (bad
input) and 3 (a gate refused) are not tried again. If the audit refuses, yesterday's labels stay live and the run is red.
If a training fails, the champion labels and the run is red too; without a champion nothing is labelled. If the further
tables fail, the labels are live and reported all the same, and the run is red. A refused night is reported too.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, TaskGroup
from labeller_operator import (
    DAY,
    DEADLINE_HOURS,
    DEFAULT_ARGS,
    LABEL_TABLES,
    RELATED_TABLES,
    ROOT_PARAM,
    LabellerOperator,
    assets,
    deadline,
    retries,
)

dag = DAG(
    dag_id="nightly_labeling",
    doc_md=__doc__,
    # A bare cron string has an interval of zero length, and with another hour a backfill leaves its last day out.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=dt.datetime(2024, 5, 1, tzinfo=dt.UTC),
    catchup=False,
    # Of scheduled nights; `airflow backfill create --max-active-runs` has its own, and the pool limits both.
    max_active_runs=1,
    deadline=deadline(DEADLINE_HOURS),
    default_args=DEFAULT_ARGS,
    params={
        "root": ROOT_PARAM,
        "ds": Param(None, type=["null", "string"], format="date", description="Day to label; empty: the data interval's."),
        "sample": Param(False, type="boolean", description="Generate a sample warehouse under root, if it is not there."),
        "sample_clicks": Param(320_000, type="integer", minimum=2_000, maximum=10_000_000, description="Its clicks."),
        "hostfile": Param(
            None,
            type=["null", "string"],
            pattern="^(/.*)?$",  # absolute: Airflow runs each task in a directory of its own
            description="DeepSpeed hostfile of the machines that train; empty: as warehouse.toml says, or this one.",
        ),
        "force_training": Param(False, type="boolean", description="Train even if the champion is fresh."),
    },
    tags=["labelling"],
)


def stage(command: str, summary: str, *, hours: float, flags: Any = None, **options: Any) -> LabellerOperator:
    """One task that runs ``labeller COMMAND`` for the day of the run, and is ended after so many hours."""
    return LabellerOperator(
        task_id=command.replace("-", "_"),
        command=command,
        doc_md=f"`labeller {command}`: {summary}.",
        flags={"root": dag.param("root"), "ds": DAY} | (flags or {}),
        execution_timeout=dt.timedelta(hours=hours),
        **options,
    )


with dag:
    hosts = {"hostfile": dag.param("hostfile")}
    # The day is not its business, and it has no flag of that name: None leaves it out.
    sample = stage(
        "sample", "generate a sample warehouse with its truth", hours=1, only_if=dag.param("sample"),
        flags={"ds": None, "clicks": dag.param("sample_clicks"), "if-missing": True},
    )  # fmt: skip

    with TaskGroup("etl", tooltip="Clicks of the window -> pairs of query and item"):
        check = stage(
            "check", "check settings and input tables before anything expensive starts", hours=1, flags=hosts,
            trigger_rule="none_failed",
        )  # fmt: skip
        pairs = stage("pairs", "clean the click log into query-item pairs", hours=6)

    with TaskGroup("model", tooltip="Pairs -> dataset -> encoder -> champion, when that is due"):
        due = stage(
            "train-due", "say whether the night has to train: exit code 0 if so, 99 if not", hours=0.5,
            flags={"force": dag.param("force_training")},
        )  # fmt: skip
        dataset = stage("dataset", "tokenise the pairs into the training dataset", hours=6)
        # It ends with 0 where there is nothing to mine: a skip would skip training.
        mine = stage(
            "mine", "give the dataset's pairs hard negatives, found by the champion", hours=6, flags={"if-wanted": True}
        )
        # The published model takes most of a day on one node; a hang is ended by the process group's own time-out. A try
        # goes on from the last whole checkpoint, so on nodes that are taken away more tries are no waste. Two at a time
        # would share the GPUs, and the alias of the candidate.
        train = stage(
            "train", "train the encoder and write the candidate bundle", hours=24, flags=hosts, max_active_tis_per_dag=1,
            **retries(4),
        )  # fmt: skip
        calibrate = stage("calibrate", "turn the candidate's scores into probabilities", hours=6)
        promote = stage("promote", "make the candidate the champion if it passes the gate", hours=0.5)

        # Nothing due, a candidate that did not beat the champion, or a training that failed is no reason to leave the
        # catalogue unlabelled: the champion labels. A failure colours the run all the same.
        over = EmptyOperator(task_id="over", trigger_rule="all_done", doc_md="Whatever became of the training: go on.")
        sound = EmptyOperator(task_id="sound", trigger_rule="none_failed", doc_md="Red if what labels outlive failed.")

    with TaskGroup("labeling", tooltip="Catalogue -> vectors -> labels: stage, audit, publish"):
        embed = stage("embed", "encode the titles that changed", hours=6)
        predict = stage("predict", "find terms and category of every item, into staging", hours=6)
        audit = stage("audit", "check what is staged; a hard failure stops the run", hours=6, outlets=assets("quality"))
        publish = stage("publish", "make the audited labels live", hours=6, outlets=assets(*LABEL_TABLES))
        relate = stage(
            "relate", "write similar items, recall lists and what else the vectors give", hours=6,
            outlets=assets(*RELATED_TABLES),
        )  # fmt: skip
        # The labels are live by then, whatever became of the further tables; or they were refused, and the page says why.
        report = stage(
            "report", "say where everything is and how good it is", hours=0.5, trigger_rule="all_done_min_one_success"
        )

    sample >> check >> pairs >> due >> dataset >> mine >> train >> calibrate >> promote
    promote >> [over, sound]
    [pairs, over] >> embed >> predict >> audit >> publish >> relate >> [report, sound]
    [predict, publish] >> report
