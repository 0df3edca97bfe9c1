#!/usr/bin/env bash
# Learning to See Before Seeing, small: does a language model's pretraining text, or tuning it without images,
# change how well it sees later? Two text mixtures, each with and without blind tuning, on the glyph world.
#
#   examples/lsbs.sh [FOLDER] [RECIPE]
#
# Finished steps are up to date and return at once: kill the script anywhere, run it again. The settings are in the
# recipe 'pocket' (priorkit recipe show pocket).
set -euo pipefail

home=${1:-lsbs}
recipe=${2:-pocket}
mkdir -p "$home"
make() { priorkit "$@" --recipe "$recipe"; }

source "$(dirname "${BASH_SOURCE[0]}")/parallel.sh"

world=$(make glyph-world --out "$home/world")
captions=$world/captions/train.parquet
instructions=$world/instructions/train.parquet
sources=()
for name in visual facts arithmetic logic code python-source python-docs; do
  sources+=("$name=$world/text/$name.jsonl")
done
make tokenizer "${sources[@]}" instructions="$instructions" --out "$home/tokenizer"

encoder() {
  make pretrain-encoder "$world/pairs/train.parquet" --out "$home/encoder"
}

# Shares of tokens: one mix rich in visual descriptions, one rich in reasoning.
declare -A weights=(
  [visual]="visual=0.4,facts=0.3,arithmetic=0.02,logic=0.02,code=0.02,python-source=0.12,python-docs=0.12"
  [reasoning]="visual=0.1,facts=0.1,arithmetic=0.2,logic=0.2,code=0.2,python-source=0.1,python-docs=0.1"
)
language_model() { # MIX
  make mix "${sources[@]}" --tokenizer "$home/tokenizer" --weight "${weights[$1]}" --out "$home/$1-corpus" |
    make pretrain - --out "$home/$1-plain-llm"
  make blind-tune "$home/$1-plain-llm" "$instructions" --out "$home/$1-blind-llm"
}
arm() { # MIX plain|blind
  make align "$home/$1-$2-llm" "$home/encoder" "$captions" --out "$home/$1-$2-aligned" |
    make tune - instructions="$instructions" captions="$captions" --out "$home/$1-$2-tuned"
  evaluate "$home/$1-$2-tuned" "$1-$2"
  if [ "$2" = blind ]; then evaluate "$home/$1-$2-tuned" "$1-unseen" --blind; fi
}
evaluate() { # MODEL NAME OPTIONS...
  priorkit evaluate "$1" "$world/benchmarks" --choices text --out "$home/$2-scores" "${@:3}"
}

run_in_parallel "language_model visual" "language_model reasoning" encoder
run_in_parallel "arm visual plain" "arm visual blind" "arm reasoning plain" "arm reasoning blind"

scores=()
for mix in visual reasoning; do
  for arm in plain blind unseen; do scores+=("$mix-$arm=$home/$mix-$arm-scores"); done
done
report=$(priorkit report "${scores[@]}" --out "$home/report")
echo "report: $report/report.html"
