#!/bin/sh
# Training on the machines of a hostfile, which this command reaches by ssh; see docs/decisions/many-hosts.md. Variables: ROOT, DS.
set -eu
LABELLER=${LABELLER:-/opt/labeller}      # the same path on every machine, as that of ROOT
exec "$LABELLER/.venv/bin/labeller" train --root "$ROOT" --ds "$DS" \
  --hostfile "$LABELLER/docs/run_at_scale/hostfile" --preset published --precision bf16 --timeout-minutes 10
