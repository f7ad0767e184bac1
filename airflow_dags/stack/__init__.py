"""A whole Airflow on one machine, for a person to look at and for the tests: ``python -m airflow_dags.stack``.

Parsed as no DAG (``.airflowignore``). It starts Airflow's own commands and PostgreSQL's, and ends them together.
"""
