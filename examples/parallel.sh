# Two commands in parallel, each on half of the cores: models this small leave a second core idle.
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=$(((cores + 1) / 2))

# Steps start with their libraries loaded.
[ -n "${PRIORKIT_PRELOADED:-}" ] || exec priorkit preload bash "$0" "$@"

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

# Commands by two processes, each of which takes the next one that is left.
share_out() { # COMMAND...: each a function with its arguments in one word
  commands=("$@")
  taken=$(mktemp -d)
  run_in_parallel take_commands take_commands
  rm -rf "$taken"
}
take_commands() {
  local number
  for number in "${!commands[@]}"; do
    if mkdir "$taken/$number" 2>/dev/null; then ${commands[number]}; fi
  done
}
