#!/usr/bin/env bash
# What pretrain-encoder's region terms (--region-weight, --region-box-weight) change on the glyph world: encoders with
# and without them, and multimodal models that read these, with several seeds.
#
#   benchmarks/regions.sh FOLDER
#   DATA=claims/world LLM=claims/llm-plain-text-1 benchmarks/regions.sh FOLDER    # with what examples/claims.sh made
set -euo pipefail

home=${1:-regions}
read -r -a seeds <<<"${SEEDS:-1 2 3}"
mkdir -p "$home/scores"
make() { priorkit "$@" --recipe pocket; }

source "$(dirname "${BASH_SOURCE[0]}")/../examples/parallel.sh"

data=${DATA:-$(make glyph-world --out "$home/world")}
llm=${LLM:-$home/llm}
if [ -z "${LLM:-}" ]; then
  sources=()
  for name in visual facts arithmetic logic code python-source python-docs; do
    sources+=("$name=$data/text/$name.jsonl")
  done
  make tokenizer "${sources[@]}" instructions="$data/instructions/train.parquet" --out "$home/tokenizer"
  make mix "${sources[@]}" --tokenizer "$home/tokenizer" --out "$home/corpus" | make pretrain - --out "$home/llm"
fi

arm() { # NAME SEED OPTIONS...
  local run=$1-$2 captions=$data/captions/train.parquet benchmarks=() name
  make pretrain-encoder "$data/pairs/train.parquet" --seed "$2" "${@:3}" --out "$home/encoder-$run"
  priorkit rank-e "$home/encoder-$run" "$data/entity_images/test" --out "$home/ranks-$run"
  make align "$llm" "$home/encoder-$run" "$captions" --steps "${ALIGN_STEPS:-150}" --seed "$2" --out "$home/aligned-$run"
  make tune "$home/aligned-$run" instructions="$data/instructions/train.parquet" captions="$captions" \
    --steps "${TUNE_STEPS:-350}" --seed "$2" --out "$home/tuned-$run"
  for name in attributes counting comparison relations existence naming grounding; do
    benchmarks+=("$data/benchmarks/$name.parquet")
  done
  priorkit evaluate "$home/tuned-$run" "${benchmarks[@]}" --choices text --out "$home/scores/$run"
}

commands=() artifacts=()
for seed in "${seeds[@]}"; do
  commands+=("arm with $seed" "arm without $seed --region-weight 0 --region-box-weight 0")
  for name in without with; do
    artifacts+=("$name@$seed=$home/scores/$name-$seed" "ranks-$name@$seed=$home/ranks-$name-$seed")
  done
done
run_in_parallel "${commands[@]}"
report=$(priorkit report "${artifacts[@]}" --title "Region terms" --out "$home/report")
echo "report: $report/report.html"
