"""Label the whole catalogue for one day, from its click log.

Every task is one command of the jobs' environment and also runs by hand; this file only wires them.

| group | what it does | when it is skipped |
|---|---|---|
| `sample` | generates a warehouse to play with | unless the parameter `sample` is set |
| `etl` | checks the inputs, then clicks -> pairs | never |
| `model` | pairs -> dataset -> encoder -> calibration -> alias of the champion | while the champion is fresh |
| `labeling` | catalogue -> embeddings -> terms and categories, audit -> publish -> further tables, report | never |

Exit code 99 of a command means "nothing due" and shows as skipped; any other non-zero code fails the task. If the
audit refuses, yesterday's labels stay live and the run is red. If a training fails, the champion labels and the run is
red too; without a champion nothing is labelled. If the further tables fail, the labels are live and reported all the
same, and the run is red.
"""

from __future__ import annotations

import datetime as dt
import os
import shlex
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, TaskGroup

CHECKOUT = Path(__file__).resolve().parent.parent
# The console command of the jobs' environment, which cannot be Airflow's own (pandas 3, another pyspark).
LABELLER = os.environ.get("LABELLER_BIN", str(CHECKOUT / ".venv" / "bin" / "labeller"))
ROOT = os.environ.get("LABELLER_ROOT", str(CHECKOUT / "warehouse" / "sample"))
# Once more in a real deployment, where spot instances and stores fail; bad input fails the same way again.
RETRIES = int(os.environ.get("LABELLER_RETRIES", "1"))
NOTHING_DUE = 99
DAY = '--ds "$LABELLER_DS"'
# Two words, or none where the parameter is empty: then the warehouse's own setting holds.
HOSTFILE = '${LABELLER_HOSTFILE:+--hostfile "$LABELLER_HOSTFILE"}'


def stage(
    command: str, arguments: str = DAY, *, guard: str = "", timeout_hours: float = 6, **options: object
) -> BashOperator:
    """One task that runs ``labeller COMMAND``; parameters reach it as variables, never as shell text."""
    return BashOperator(
        task_id=command.replace("-", "_"),
        bash_command=f'{guard}exec {shlex.quote(LABELLER)} {command} --root "$LABELLER_ROOT" {arguments}',
        env={
            "LABELLER_ROOT": "{{ params.root }}",
            "LABELLER_DS": "{{ params.ds or (data_interval_start | ds) }}",
            "LABELLER_SAMPLE": "{{ params.sample }}",
            "LABELLER_SAMPLE_CLICKS": "{{ params.sample_clicks }}",
            "LABELLER_HOSTFILE": "{{ params.hostfile or '' }}",
            "LABELLER_FORCE": "{{ '--force' if params.force_training else '--no-force' }}",
        },
        append_env=True,
        skip_on_exit_code=NOTHING_DUE,
        execution_timeout=dt.timedelta(hours=timeout_hours),
        **options,
    )


with DAG(
    dag_id="nightly_labeling",
    doc_md=__doc__,
    # A bare cron string has an interval of zero length, and with another hour a backfill leaves its last day out.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=dt.datetime(2024, 5, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": RETRIES, "retry_delay": dt.timedelta(minutes=5)},
    params={
        "root": Param(ROOT, type="string", minLength=1, description="Warehouse: directory with the four input tables."),
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
) as dag:
    sample = stage(
        "sample",
        '--clicks "$LABELLER_SAMPLE_CLICKS" --if-missing',
        guard=f'[ "$LABELLER_SAMPLE" = True ] || {{ echo "no sample is wanted"; exit {NOTHING_DUE}; }}; ',
        timeout_hours=1,
    )

    with TaskGroup("etl"):
        check = stage("check", f"{DAY} {HOSTFILE}", timeout_hours=1, trigger_rule="none_failed")
        pairs = stage("pairs")

    with TaskGroup("model"):
        due = stage("train-due", f'{DAY} "$LABELLER_FORCE"', timeout_hours=0.5)
        dataset = stage("dataset")
        mine = stage("mine", f"{DAY} --if-wanted")  # 0 where there is nothing to mine: a skip would skip training
        # The published model takes most of a day on one node; a hang is ended by the process group's own time-out.
        train = stage("train", f"{DAY} {HOSTFILE}", timeout_hours=24)
        calibrate = stage("calibrate")
        promote = stage("promote", timeout_hours=0.5)

        # Nothing due, a candidate that did not beat the champion, or a training that failed is no reason to leave the
        # catalogue unlabelled: the champion labels. A failure colours the run all the same.
        over = EmptyOperator(task_id="over", trigger_rule="all_done")
        sound = EmptyOperator(task_id="sound", trigger_rule="none_failed")

    with TaskGroup("labeling"):
        embed = stage("embed")
        predict = stage("predict")
        audit = stage("audit")
        publish = stage("publish")
        relate = stage("relate")
        # The labels are live by then, whatever became of the further tables.
        report = stage("report", timeout_hours=0.5, trigger_rule="all_done_min_one_success")

    sample >> check >> pairs >> due >> dataset >> mine >> train >> calibrate >> promote
    promote >> [over, sound]
    [pairs, over] >> embed >> predict >> audit >> publish >> relate >> [report, sound]
    publish >> report
