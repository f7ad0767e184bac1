#!/bin/sh
# One stage on Kubernetes, the driver in a pod too. IMAGE holds this checkout at /opt/labeller, after `make setup`, and Java 17;
# the claim `warehouse` is mounted at /data in every pod. Variables: API (https://host:6443), IMAGE, ROOT (under /data), DS, STAGE.
set -eu
LABELLER=${LABELLER:-/opt/labeller}      # the checkout here, whose spark-submit is the image's
CLAIM=volumes.persistentVolumeClaim.warehouse
export PATH="$LABELLER/.venv/bin:$PATH" # spark-submit asks python3 where Spark lies
exec spark-submit \
  --master "k8s://$API" --deploy-mode cluster --name "labeller-${STAGE:-embed}-$DS" \
  --driver-memory 4g --executor-memory 16g \
  --jars "$(echo "$LABELLER"/.venv/jars/*.jar | tr ' ' ',' | sed "s#$LABELLER#local:///opt/labeller#g")" \
  --driver-java-options "-Dlog4j2.configurationFile=file:/opt/labeller/etl/log4j2.properties" \
  --conf spark.kubernetes.namespace=labeller \
  --conf spark.kubernetes.authenticate.driver.serviceAccountName=spark \
  --conf spark.kubernetes.container.image="$IMAGE" \
  --conf spark.executor.instances=16 \
  --conf spark.kubernetes.driver.$CLAIM.options.claimName=warehouse \
  --conf spark.kubernetes.driver.$CLAIM.mount.path=/data \
  --conf spark.kubernetes.executor.$CLAIM.options.claimName=warehouse \
  --conf spark.kubernetes.executor.$CLAIM.mount.path=/data \
  --conf spark.kubernetes.driverEnv.PYTHONPATH=/opt/labeller \
  --conf spark.executorEnv.PYTHONPATH=/opt/labeller \
  --conf spark.pyspark.python=/opt/labeller/.venv/bin/python \
  local:///opt/labeller/labeling/cli.py "${STAGE:-embed}" --root "$ROOT" --ds "$DS" --master "k8s://$API" --driver-memory 4g
