#!/usr/bin/env bash
# scripts/create_datasets_from_start.sh at the path of Habana's script.
exec bash "$(dirname "$0")/../scripts/create_datasets_from_start.sh" "$@"
