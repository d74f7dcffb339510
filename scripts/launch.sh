# Sourced by the scripts under published names: checks of what they are given, and the
# start of workers. The variable PYTHON names another interpreter than python.
python=${PYTHON:-python}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

refuse() {
  echo "error: $*" >&2
  exit 1
}

# The arguments here are those of the script: its usage is the comment at its top.
for word in "$@"; do
  case $word in
    -h | -help* | --help*) sed -n '1{/^#!/d}; /^#/!q; s/^# \{0,1\}//p' "$0"; exit 0 ;;
  esac
done
unset word
case ${0##*/} in
  launch.sh | fps.sh | pretrain.sh) refuse "$0 does nothing: other scripts source it." ;;
esac

# take_arguments MAX ARGUMENTS...: refuses options, and more arguments than MAX.
take_arguments() {
  local max=$1 word
  shift
  for word in "$@"; do
    case $word in -*) refuse "Unknown option $word. See bash $0 --help." ;; esac
  done
  if [ $# -gt "$max" ]; then
    refuse "There must be at most $max arguments. Received: $*. See bash $0 --help."
  fi
}

# need_number NAME VALUE
need_number() {
  case $2 in
    '' | 0* | *[!0-9]*) refuse "$1 must be a positive whole number. Received: $1=$2" ;;
  esac
}

# need_variable NAME DESCRIPTION
need_variable() {
  if [ -z "${!1:-}" ]; then refuse "$1 is not set. Set it to $2: export $1=..."; fi
}

# model_folder PATH: the folder of weights: PATH, or that of a file.
model_folder() { if [ -d "$1" ]; then echo "$1"; else dirname "$1"; fi; }

# flag_value NAME DEFAULT FLAGS...: a flag's last value, in any spelling of absl.
flag_value() {
  local name=$1 value=$2
  shift 2
  while [ $# -gt 0 ]; do
    case $1 in
      --"$name"=* | -"$name"=*) value=${1#*=} ;;
      --"$name" | -"$name") value=${2:-} ;;
    esac
    shift
  done
  echo "$value"
}

# set_start WORKERS OPTIONS_OF_MPIRUN...: sets `start`, what comes before the name of a
# Python script, and `horovod`, the flag that several workers need.
set_start() {
  start=("$python") horovod=()
  if [ "$1" -gt 1 ]; then
    horovod=(--horovod)
    start+=(-m bert_tf launch -- mpirun --bind-to none -np "$1")
    if [ "$(id -u)" = 0 ]; then start+=(--allow-run-as-root); fi
    start+=("${@:2}" "$python")
  fi
}

# throughput FLAGS_OF_RUN_PRETRAINING...: its sequences per second, from its log.
throughput() {
  local log
  log=$(flag_value dllog_path "$(flag_value output_dir '' "$@")/bert_dllog.json" "$@")
  log=$(grep -o '"throughput_train": [0-9.]*' "$log" | tail -1)
  echo "${log##* }"
}
