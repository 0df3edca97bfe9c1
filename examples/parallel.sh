# Commands in PROCESSES processes at a time (two, if not given), each on its share of the cores: models this small leave
# a second core idle. With PROCESSES=1 one after another: where one GPU does all the work.
processes=${PROCESSES:-2}
[[ $processes =~ ^[1-9][0-9]*$ ]] || { echo "PROCESSES is a number from 1 up, got '$processes'" >&2; exit 2; }
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=$(((cores + processes - 1) / processes))

# Steps start with their libraries loaded.
[ -n "${PRIORKIT_PRELOADED:-}" ] || exec priorkit preload bash "$0" "$@"

# Shares out commands, each given as one word, to the processes: each takes the next one that is left.
# Piped through cat, progress is printed as lines: two bars would share one line of the terminal.
run_in_parallel() { # COMMAND...
  local commands=("$@") number
  { # a subshell; what its trap reads must not be local
    taken=$(mktemp -d)
    groups=()
    trap 'stop "${groups[@]}"; rm -r "$taken"' EXIT
    for ((number = 1; number < processes; number++)); do
      set -m # each gets its own process group, so that all of it can be stopped
      { trap 'mark_failure $?' EXIT; take_commands; } &
      groups+=("$!")
      set +m
    done
    take_commands
    for number in "${groups[@]}"; do wait "$number"; done
    groups=()
  } 2>&1 | cat >&2
}
take_commands() {
  local number
  for number in "${!commands[@]}"; do
    [ ! -e "$taken/failed" ] || return 1 # a command of another process failed
    if mkdir "$taken/$number" 2>/dev/null; then eval "${commands[number]}"; fi
  done
}
mark_failure() { # STATUS: of a process; one that was stopped (above 128) is no failure
  if (($1 > 0 && $1 <= 128)); then mkdir -p "$taken/failed"; fi
}
stop() { # PROCESS_GROUP...
  local group
  for group; do kill -TERM -- "-$group" 2>/dev/null || true; done
}
