#!/usr/bin/env bash
# LION on the glyph world: what aggregator, adapters, router, stages and tags contribute in a small model.
#
# Every variant is tuned with several seeds on the same frozen LLaVA model and evaluated on boxes (grounding)
# and names (naming). Finished steps are up to date and return at once: kill the script anywhere, run it again.
# SEEDS="1" gives a quick run, STEPS changes the length of every tuning run. The world and the base model are those of
# the recipe 'pocket'; each variant's settings are in a recipe of its name (priorkit recipe show lion/baseline).
set -euo pipefail

home=${1:-lion}
seeds=${SEEDS:-1 2 3}
steps=${STEPS:-300}
batch=8 # as in the recipes
boxes=(--box-format location-tokens --box-bins 24) # as in the recipe 'pocket'
mkdir -p "$home/scores"
make() { priorkit "$@" --recipe pocket; }

source "$(dirname "${BASH_SOURCE[0]}")/parallel.sh"

# The world, a language model and an encoder.
world=$(make glyph-world --regions 6000 --out "$home/world")
instructions=$world/instructions/train.parquet
captions=$world/captions/train.parquet
benchmarks=("$world/benchmarks/grounding.parquet" "$world/benchmarks/naming.parquet")

language_model() {
  local sources=()
  for name in visual facts arithmetic logic code python-source python-docs; do
    sources+=("$name=$world/text/$name.jsonl")
  done
  make tokenizer "${sources[@]}" instructions="$instructions" --out "$home/tokenizer"
  make mix "${sources[@]}" --tokenizer "$home/tokenizer" --out "$home/corpus"
  make pretrain "$home/corpus" --out "$home/llm"
}

encoder() {
  make pretrain-encoder "$world/pairs/train.parquet" --out "$home/encoder"
}

run_in_parallel language_model encoder

# LION's base is a frozen model that follows instructions. This one was tuned with images through LLaVA's
# projector, which no variant keeps.
llava=$home/llava
base() {
  make align "$home/llm" "$home/encoder" "$captions" --out "$home/aligned" |
    make tune - instructions="$instructions" captions="$captions" --out "$llava"
}

# The world has true tags; noise on them simulates a tagger that misses three tags in ten and gets three in ten
# of the others wrong. The encoder's tags, calibrated on the captions' true tags, show how precise tags from so
# small an encoder are.
noisy_tags_of() { # FILE NAME
  priorkit tag-images "$1" --vocabulary "$world/names.txt" --recipe lion/noisy-tags --out "$home/noisy-$2"
}
taggers() {
  noisy_tags_of "$instructions" image
  noisy_tags_of "$world/regions/train.parquet" region
  noisy_tags_of "${benchmarks[0]}" grounding
  noisy_tags_of "${benchmarks[1]}" naming
  priorkit tag-images "${benchmarks[0]}" "$home/encoder" --vocabulary "$world/names.txt" \
    --labelled "$captions" --most 8 --out "$home/encoder-tags"
}

run_in_parallel base taggers

# Image-level and region-level data, as they are and with noisy tags.
clean=(image="$instructions" region="$world/regions/train.parquet")
noisy=(image="$home/noisy-image/train.parquet" region="$home/noisy-region/train.parquet")
noisy_benchmarks=("$home/noisy-grounding/grounding.parquet" "$home/noisy-naming/naming.parquet")

tune_variant() { # RECIPE STEPS SEED MODEL DATA... OPTIONS: reads only as many samples as the run needs
  priorkit tune "${@:4}" "${boxes[@]}" --recipe "$1" --steps "$2" --subset $(($2 * batch)) --seed "$3"
}
score() { # MODEL NAME BENCHMARK...
  priorkit evaluate "$1" "${@:3}" --choices text --out "$home/scores/$2"
}
clean_data() { # VARIANT SEED
  tune_variant "lion/$1" "$steps" "$2" "$llava" "${clean[@]}" --out "$home/$1-$2"
  score "$home/$1-$2" "$1-$2" "${benchmarks[@]}"
}
noisy_tags() { # VARIANT SEED
  tune_variant "lion/${1%-noisy}" "$steps" "$2" "$llava" "${noisy[@]}" --out "$home/$1-$2"
  score "$home/$1-$2" "$1-$2" "${noisy_benchmarks[@]}"
}
three_stages() { # VARIANT SEED; the same number of steps in total
  local third=$((steps / 3))
  tune_variant lion "$third" "$2" "$llava" "${clean[0]}" --stage 1 --out "$home/stage1-$2"
  tune_variant lion "$third" "$2" "$llava" "${clean[1]}" --stage 2 --out "$home/stage2-$2"
  priorkit merge-adapters "$home/stage1-$2" "$home/stage2-$2" --method mixture --out "$home/start-$2"
  tune_variant lion "$third" "$2" "$home/start-$2" "${clean[@]}" --stage 3 --out "$home/$1-$2"
  score "$home/$1-$2" "$1-$2" "${benchmarks[@]}"
}

# No aggregator, one adapter, one stage; then one part more at a time; then tags, true or noisy, as text or with
# the soft prompt.
variants=(baseline aggregator two-adapters router three-stages hard-tags hard-tags-noisy soft-tags soft-tags-noisy)
variant() { # NAME SEED
  case $1 in
    three-stages) three_stages "$@" ;;
    *-noisy) noisy_tags "$@" ;;
    *) clean_data "$@" ;;
  esac
}
commands=()
for seed in $seeds; do
  for name in "${variants[@]}"; do commands+=("variant $name $seed"); done
done
run_in_parallel "${commands[@]}"

# A row per variant: the mean over its seeds with its interval, and its ratio to the baseline.
scores=()
for name in "${variants[@]}"; do
  for seed in $seeds; do
    scores+=("$name@$seed=$home/scores/$name-$seed")
  done
done
report=$(priorkit report "${scores[@]}" --title "LION on the glyph world" --out "$home/report")
echo "report: $report/report.html"
