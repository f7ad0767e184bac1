# What a person wants from the log of `airflow dags test`: which task runs, and the lines that it prints.
# The whole log is kept in a file (see the Makefile).
# Two tasks only join or colour others.
/starting task_id=model\.(over|sound) /d
s/^[^ ]+ \[info *\] \[DAG TEST\] starting task_id=([^ ]+) .*/\n==== \1/p
s/^[^ ]+ \[info *\] Command exited with return code 99 .*/nothing to do, or nothing promoted (the lines above say which): skipped/p
/SubprocessHook\] loc=/{
  /\] (Tmp dir root location|Running command|Output:|Command exited with return code 0)/b
  # Java's word at every start of Spark.
  /\] WARNING: Using incubator modules/b
  s/^[^ ]+ \[[a-z]+ *\] (.*[^ ]) *\[airflow\.task\.hooks.*SubprocessHook\] loc=.*$/\1/p
  b
}
/^[^ ]+ \[(error|critical) *\]/p
/^[A-Za-z_.]*(Error|Exception): /p
