#!/usr/bin/env bash
# Learning to See Before Seeing, small: does a language model's pretraining text, or tuning it without images,
# change how well it sees later? Two text mixtures, each with and without blind tuning, on the glyph world.
#
#   examples/lsbs.sh [FOLDER] [RECIPE]
#
# Every step prints the path of its output. Finished steps are up to date and return at once: kill the script
# anywhere, run it again. The settings are in the recipe 'pocket' (priorkit recipe show pocket).
set -euo pipefail

# Steps start with their libraries loaded.
[ -n "${PRIORKIT_PRELOADED:-}" ] || exec priorkit preload bash "$0" "$@"

home=${1:-lsbs}
recipe=${2:-pocket}
mkdir -p "$home"
make() { priorkit "$@" --recipe "$recipe"; }

world=$(make glyph-world --out "$home/world")
captions=$world/captions/train.parquet
instructions=$world/instructions/train.parquet
sources=()
for name in visual facts arithmetic logic code python-source python-docs; do
  sources+=("$name=$world/text/$name.jsonl")
done
tokenizer=$(make tokenizer "${sources[@]}" instructions="$instructions" --out "$home/tokenizer")
encoder=$(make pretrain-encoder "$world/pairs/train.parquet" --out "$home/encoder")

# Shares of tokens: one mix rich in visual descriptions, one rich in reasoning.
declare -A weights=(
  [visual]="visual=0.4,facts=0.3,arithmetic=0.02,logic=0.02,code=0.02,python-source=0.12,python-docs=0.12"
  [reasoning]="visual=0.1,facts=0.1,arithmetic=0.2,logic=0.2,code=0.2,python-source=0.1,python-docs=0.1"
)
scores=()
for mix in visual reasoning; do
  llm=$(make mix "${sources[@]}" --tokenizer "$tokenizer" --weight "${weights[$mix]}" --out "$home/$mix-corpus" |
    make pretrain - --out "$home/$mix-llm")
  blind=$(make blind-tune "$llm" "$instructions" --out "$home/$mix-blind-llm")
  for arm in plain blind; do
    start=$llm
    if [ "$arm" = blind ]; then start=$blind; fi
    tuned=$(make align "$start" "$encoder" "$captions" --out "$home/$mix-$arm-aligned" |
      make tune - instructions="$instructions" captions="$captions" --out "$home/$mix-$arm-tuned")
    scores+=("$mix-$arm=$(priorkit evaluate "$tuned" "$world/benchmarks" --choices text --out "$home/$mix-$arm-scores")")
  done
  scores+=("$mix-unseen=$(priorkit evaluate "$home/$mix-blind-tuned" "$world/benchmarks" --choices text --blind \
    --out "$home/$mix-unseen-scores")")
done

report=$(priorkit report "${scores[@]}" --out "$home/report")
echo "report: $report/report.html"
