"""Look after the warehouse once a week: old days, bundles and datasets go, small files are put together, dead ones removed.

What is live, what a rollback can go back to and what rows that stay refer to is kept, whatever the settings say
(`docs/upkeep.md`). It runs at noon, when no night does: a commit to a table that is compacted meanwhile may have to be made
again.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, CronTriggerTimetable, Param
from labeller_operator import DEADLINE_HOURS, DEFAULT_ARGS, ROOT_PARAM, LabellerOperator, deadline

with DAG(
    dag_id="maintain_labeling",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 12 * * 0", timezone="UTC"),
    start_date=dt.datetime(2024, 5, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    deadline=deadline(DEADLINE_HOURS),
    default_args=DEFAULT_ARGS,
    params={
        "root": ROOT_PARAM,
        "dry_run": Param(False, type="boolean", description="Only say what would go."),
    },
    tags=["labelling"],
) as dag:
    LabellerOperator(
        task_id="maintain",
        command="maintain",
        doc_md="`labeller maintain`: let go what is old and nothing refers to, compact and vacuum tables.",
        flags={"root": dag.param("root"), "ds": "{{ dag_run.run_after | ds }}", "dry-run": dag.param("dry_run")},
        execution_timeout=dt.timedelta(hours=6),
    )
