"""Make days of the past again with a bundle that is there: plan, make, compare, publish. It never trains.

| task | what it does | when it is skipped |
|---|---|---|
| `plan` | says for each day of the range what exists, what would run, why, and about how long it takes | never |
| `day.make` | makes a day up to its audit; nothing is live by it | days with nothing to do; `until` = plan |
| `day.diff` | says what publishing the day would change, and why | the same |
| `day.publish` | publishes the day, an older one into the history only, and its further tables | unless `until` = publish |

Days run side by side, as many as the pool has slots. One that fails leaves the others as they are. Run it with `until` =
diff, read the diffs, then run it again with publish: what is made already is not made again. Airflow's own `airflow backfill
create --dag-id nightly_labeling` makes days with all tasks of a night instead, training too where it is due.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.sdk import DAG, Param, task_group
from labeller_operator import (
    DEADLINE_HOURS,
    DEFAULT_ARGS,
    LABEL_TABLES,
    RELATED_TABLES,
    ROOT_PARAM,
    LabellerOperator,
    assets,
    days_to_make,
    deadline,
)

dag = DAG(
    dag_id="backfill_labeling",
    doc_md=__doc__,
    schedule=None,
    max_active_runs=1,  # a plan of days that another run is at would be out of date at once
    deadline=deadline(3 * DEADLINE_HOURS),  # a range may be long; a day later somebody should know that it still runs
    default_args=DEFAULT_ARGS,
    params={
        "root": ROOT_PARAM,
        "from": Param(type="string", format="date", description="First day of the range."),
        "to": Param(type="string", format="date", description="Last day of the range, included."),
        "until": Param("diff", enum=["plan", "diff", "publish"], description="How far to go."),
        "order": Param("newest", enum=["newest", "oldest"], description="Which day is made first."),
        "mode": Param(
            "today",
            enum=["today", "as-it-was"],
            description="today: champion, inputs and settings of now; as-it-was: those that each day's lineage names.",
        ),
        "bundle": Param("", type="string", pattern=r"^([A-Za-z0-9][\w.-]*)?$", description="Bundle; empty: the champion."),
        "window_days": Param(None, type=["null", "integer"], minimum=1, description="Days of clicks; empty: [pairs] says."),
        "pins": Param(
            [],
            type="array",
            items={"type": "string", "pattern": r"^[a-z_]+=\d+$"},
            description="Delta versions of inputs, as vocabulary=12; empty: the newest.",
        ),
        "force": Param(False, type="boolean", description="Run every stage, also those that are done with the same pins."),
    },
    tags=["labelling"],
)


def backfill(task_id: str, action: str, summary: str, **options: Any) -> LabellerOperator:
    """One task that runs ``labeller backfill ACTION`` as the parameters say."""
    flags = {name.replace("_", "-"): dag.param(name) for name in ("root", "mode", "bundle", "window_days", "pins", "force")}
    return LabellerOperator(
        task_id=task_id,
        command=f"backfill {action}",
        doc_md=f"`labeller backfill {action}`: {summary}.",
        flags=flags | options.pop("flags", {}),
        **options,
    )


@task_group(group_id="day", tooltip="A day of the plan; days run side by side", dag=dag)
def make_day(day: Any) -> None:
    """One day of the plan."""
    # All stages of a night but training, each of which a night gives six hours; a try goes on with the stage that failed.
    make = backfill(
        "make", "run", "make the day up to its audit", more=day, flags={"publish": False},
        only_if="{{ params.until != 'plan' }}", execution_timeout=dt.timedelta(hours=12),
    )  # fmt: skip
    diff = backfill("diff", "diff", "say what publishing would change", more=day, execution_timeout=dt.timedelta(hours=2))
    publish = backfill(
        "publish", "run", "publish the day and write its further tables", more=day,
        only_if="{{ params.until == 'publish' }}", execution_timeout=dt.timedelta(hours=12),
        outlets=assets(*LABEL_TABLES, *RELATED_TABLES),
    )  # fmt: skip
    make >> diff >> publish


with dag:
    plan = backfill(
        "plan", "plan", "say what would be done, and why; writes nothing", of_output=days_to_make,
        flags={"from": dag.param("from"), "to": dag.param("to"), "order": dag.param("order"), "json": True},
        execution_timeout=dt.timedelta(hours=2),
    )  # fmt: skip
    make_day.expand(day=plan.output)
