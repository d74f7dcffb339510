#!/usr/bin/env bash
# Iluvatar's set-up: environment, Horovod, fused operations and data.
exec make -C "$(dirname "$0")/.." setup
