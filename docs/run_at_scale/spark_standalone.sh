#!/bin/sh
# One stage on a standalone cluster; the driver is this command. Variables: ROOT, DS, STAGE (default: embed).
set -eu
LABELLER=${LABELLER:-/opt/labeller}      # this checkout, after `make setup wheel`
MASTER=${MASTER:-spark://head:7077}
export PATH="$LABELLER/.venv/bin:$PATH" # spark-submit asks python3 where Spark lies
exec spark-submit \
  --master "$MASTER" --deploy-mode client \
  --driver-memory 4g --executor-memory 8g \
  --jars "$(echo "$LABELLER"/.venv/jars/*.jar | tr ' ' ',')" \
  --driver-java-options "-Dlog4j2.configurationFile=file:$LABELLER/etl/log4j2.properties" \
  --py-files "$LABELLER/build/labeller.zip" \
  --archives /data/labeller/environment.tar.gz#environment \
  --conf spark.pyspark.driver.python="$LABELLER/.venv/bin/python" \
  --conf spark.pyspark.python=./environment/bin/python \
  --conf spark.executor.resource.gpu.amount=1 --conf spark.task.resource.gpu.amount=1 \
  "$LABELLER/labeling/cli.py" "${STAGE:-embed}" --root "$ROOT" --ds "$DS" --master "$MASTER" --driver-memory 4g
