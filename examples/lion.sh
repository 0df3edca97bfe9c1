#!/usr/bin/env bash
# LION on the glyph world: what aggregator, adapters, router, stages and tags are worth to a small model.
#
# Every variant is tuned with several seeds on the same frozen LLaVA model and asked for boxes (grounding)
# and names (naming). A step whose result is there says so and returns at once: kill it anywhere, run it
# again. SEEDS="1" makes a quick round, STEPS changes the length of every tuning run; the settings stand in
# the recipe 'lion', and with what a variant has in a recipe of its name (priorkit recipe show lion/baseline).
set -euo pipefail

home=${1:-lion}
seeds=${SEEDS:-1 2 3}
steps=${STEPS:-270}
batch=4 # as in the recipes
mkdir -p "$home/scores"
make() { priorkit "$@" --recipe lion; }

source "$(dirname "${BASH_SOURCE[0]}")/branches.sh" # branches: two at a time

# The world, then a language model that reads and an encoder that sees.
world=$(make glyph-world --out "$home/world")
asked=("$world/benchmarks/grounding.parquet" "$world/benchmarks/naming.parquet")

language_model() {
  local sources=()
  for name in visual facts arithmetic logic code python-docs; do
    sources+=("$name=$world/text/$name.jsonl")
  done
  make tokenizer "${sources[@]}" --out "$home/tokenizer"
  make mix "${sources[@]}" --tokenizer "$home/tokenizer" --out "$home/corpus"
  make pretrain "$home/corpus" --out "$home/llm"
}

encoder() {
  make pretrain-encoder "$world/pairs/train.parquet" --out "$home/encoder"
}

branches language_model encoder

# LION stands on a model that follows instructions and stays frozen; this one has seen images through LLaVA's
# projector, which no variant keeps.
llava=$home/llava
base() {
  make align "$home/llm" "$home/encoder" "$world/captions/train.parquet" --out "$home/aligned" |
    priorkit tune - "$world/instructions/train.parquet" --steps 1500 --batch-size 8 --learning-rate 1e-3 --out "$llava"
}

# The world knows what its images show; a tagger that misses three tags in ten and names three of the others
# wrongly is made by putting noise on that. One of the kit's own, calibrated on the captions' true tags, shows
# how precise tags from so small an encoder are.
noise() {
  priorkit tag-images "$1" --vocabulary "$world/names.txt" --recipe lion/noisy-tags --out "$home/noisy-$2"
}
taggers() {
  noise "$world/instructions/train.parquet" image
  noise "$world/regions/train.parquet" region
  noise "${asked[0]}" grounding
  noise "${asked[1]}" naming
  priorkit tag-images "${asked[0]}" "$home/encoder" --vocabulary "$world/names.txt" \
    --labelled "$world/captions/train.parquet" --most 8 --out "$home/encoder-tags"
}

branches base taggers

# Image-level and region-level data, as they are and with noisy tags.
clean=(image="$world/instructions/train.parquet" region="$world/regions/train.parquet")
noisy=(image="$home/noisy-image/train.parquet" region="$home/noisy-region/train.parquet")
asked_noisy=("$home/noisy-grounding/grounding.parquet" "$home/noisy-naming/naming.parquet")

tuned() { # RECIPE STEPS SEED MODEL DATA... OPTIONS: no more is read than the run will see
  priorkit tune "${@:4}" --recipe "$1" --steps "$2" --subset $(($2 * batch)) --seed "$3"
}
score() { # MODEL NAME BENCHMARK...; a box takes 25 tokens
  priorkit evaluate "$1" "${@:3}" --choices text --max-new-tokens 32 --out "$home/scores/$2"
}
clean_data() { # VARIANT SEED
  tuned "lion/$1" "$steps" "$2" "$llava" "${clean[@]}" --out "$home/$1-$2"
  score "$home/$1-$2" "$1-$2" "${asked[@]}"
}
noisy_tags() { # VARIANT SEED
  tuned "lion/${1%-noisy}" "$steps" "$2" "$llava" "${noisy[@]}" --out "$home/$1-$2"
  score "$home/$1-$2" "$1-$2" "${asked_noisy[@]}"
}
three_stages() { # VARIANT SEED; as many steps in all
  local third=$((steps / 3))
  tuned lion "$third" "$2" "$llava" "${clean[0]}" --stage 1 --out "$home/stage1-$2"
  tuned lion "$third" "$2" "$llava" "${clean[1]}" --stage 2 --out "$home/stage2-$2"
  priorkit merge-adapters "$home/stage1-$2" "$home/stage2-$2" --method mixture --out "$home/start-$2"
  tuned lion "$third" "$2" "$home/start-$2" "${clean[@]}" --stage 3 --out "$home/$1-$2"
  score "$home/$1-$2" "$1-$2" "${asked[@]}"
}

# No aggregator, one adapter, one stage; then one thing more at a time; then tags, right or wrong, as text or
# with the soft prompt.
variants=(baseline aggregator two-adapters router three-stages hard-tags hard-tags-noisy soft-tags soft-tags-noisy)
variant() { # NAME SEED
  case $1 in
    three-stages) three_stages "$@" ;;
    *-noisy) noisy_tags "$@" ;;
    *) clean_data "$@" ;;
  esac
}
every_second() { # of all variants and seeds, from the given one on
  local number=$1 seed name
  for seed in $seeds; do
    for name in "${variants[@]}"; do
      if ((number++ % 2 == 0)); then variant "$name" "$seed"; fi
    done
  done
}
odd() { every_second 0; }
even() { every_second 1; }
branches odd even

# A row for each variant: the mean over its seeds with its interval, and how many times the baseline's it is.
scores=()
for name in "${variants[@]}"; do
  for seed in $seeds; do
    scores+=("$name@$seed=$home/scores/$name-$seed")
  done
done
report=$(priorkit report "${scores[@]}" --title "LION on the glyph world" --out "$home/report")
echo "report: $report/report.html"
