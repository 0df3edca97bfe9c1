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

# Commands one after the other, every second one in a process of its own.
share_out() { # COMMAND...: each a function with its arguments in one word
  if [ $# -eq 0 ]; then return; fi
  shared=("$@")
  run_in_parallel every_first_of_two every_second_of_two
}
every_first_of_two() { every_other 0; }
every_second_of_two() { every_other 1; }
every_other() { # START
  local number
  for ((number = $1; number < ${#shared[@]}; number += 2)); do ${shared[number]}; done
}
