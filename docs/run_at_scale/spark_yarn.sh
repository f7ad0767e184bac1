#!/bin/sh
# One stage on YARN; the driver is this command, where HADOOP_CONF_DIR says where the cluster is. Variables: ROOT, DS, STAGE.
set -eu
LABELLER=${LABELLER:-/opt/labeller}      # this checkout, after `make setup wheel`
: "${HADOOP_CONF_DIR:?the directory of yarn-site.xml}"
export PATH="$LABELLER/.venv/bin:$PATH" # spark-submit asks python3 where Spark lies
exec spark-submit \
  --master yarn --deploy-mode client --queue nightly --name "labeller ${STAGE:-embed} $DS" \
  --driver-memory 4g --num-executors 16 --executor-cores 4 --executor-memory 16g \
  --jars "$(echo "$LABELLER"/.venv/jars/*.jar | tr ' ' ',')" \
  --driver-java-options "-Dlog4j2.configurationFile=file:$LABELLER/etl/log4j2.properties" \
  --py-files "$LABELLER/build/labeller.zip" \
  --archives /data/labeller/environment.tar.gz#environment \
  --conf spark.pyspark.driver.python="$LABELLER/.venv/bin/python" \
  --conf spark.pyspark.python=./environment/bin/python \
  --conf spark.executor.memoryOverhead=4g \
  "$LABELLER/labeling/cli.py" "${STAGE:-embed}" --root "$ROOT" --ds "$DS" --master yarn --driver-memory 4g
