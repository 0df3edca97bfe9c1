# Two commands in parallel, each on half of the cores: models this small leave a second core idle.
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=$(((cores + 1) / 2))

# Piped through cat, progress is printed as lines: two bars would share one line of the terminal.
run_in_parallel() { # FUNCTION FUNCTION
  {
    set -m # the first gets its own process group, so that all of it can be stopped
    "$1" &
    local first=$!
    set +m
    trap 'kill -TERM -- -'"$first"' 2>/dev/null || true' EXIT
    "$2"
    wait "$first"
    trap - EXIT
  } 2>&1 | cat >&2
}
