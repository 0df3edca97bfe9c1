# Two branches at a time, each on half of the cores: models as small as these leave a second core idle.
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=$(((cores + 1) / 2))

# Through cat the progress comes as lines: two bars would share one line of the terminal.
branches() { # FUNCTION FUNCTION
  {
    set -m # a process group of its own for the first, so that it can be stopped as a whole
    "$1" &
    local first=$!
    set +m
    trap 'kill -TERM -- -'"$first"' 2>/dev/null || true' EXIT
    "$2"
    wait "$first"
    trap - EXIT
  } 2>&1 | cat >&2
}
