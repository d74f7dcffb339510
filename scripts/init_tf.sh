#!/usr/bin/env bash
# Iluvatar's set-up: environment, Horovod, fused operations and data: make setup. It takes no arguments.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
take_arguments 0 "$@"
exec make -C "$root" setup
