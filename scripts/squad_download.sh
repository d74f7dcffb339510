#!/usr/bin/env bash
# Downloads SQuAD 1.1 into the folder named, or SQUAD_DIR, or the current one:
#   squad_download.sh [folder]
set -euo pipefail
source "$(dirname "$0")/launch.sh"
take_arguments 1 "$@"
exec "$python" -m bert_tf data download --name=squad-1.1 \
  --output_dir="${1:-${SQUAD_DIR:-.}}"
