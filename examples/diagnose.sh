#!/usr/bin/env bash
# Does diagnose find the part at fault? On glyph worlds it is known: every entity was left out of the encoder's pairs,
# the captions, the text or the instructions at random, 20 entities in each of the 16 combinations.
#
#   1. For each seed: a world, an encoder, a language model, alignment, tuning; diagnosed before and after tuning.
#   2. Verdicts against planted causes: ordered tests, a model fitted to the other worlds, baselines.
#   3. Accuracy after tuning forecast from the evidence before it.
#   4. On the first world every remedy for all entities: does the one for the cause gain most?
#
# Finished steps are up to date and return at once: kill the script anywhere, run it again.
# SEEDS="1 2 3" and REMEDIES="encoder language projector tuning" choose what is run; the settings are in the recipe
# 'diagnose' (priorkit recipe show diagnose).
set -euo pipefail

home=${1:-diagnose}
examples=$(dirname "${BASH_SOURCE[0]}")
recipe=${RECIPE:-diagnose}
read -ra seeds <<<"${SEEDS:-1 2 3}"
read -ra remedies <<<"${REMEDIES-encoder language projector tuning}"
mkdir -p "$home"
make() { priorkit "$@" --recipe "$recipe"; }
experiment() { python "$examples/../benchmarks/diagnosis.py" "$@" >&2; }

source "$examples/parallel.sh"

text_sources() { # WORLD: the sources of its text, by name
  local name
  for name in visual facts arithmetic logic code python-source python-docs; do
    echo "$name=$1/text/$name.jsonl"
  done
}

language_model() {
  local sources
  mapfile -t sources < <(text_sources "$world")
  make tokenizer "${sources[@]}" --out "$at/tokenizer" >/dev/null
  make mix "${sources[@]}" --tokenizer "$at/tokenizer" --out "$at/corpus" | make pretrain - --seed "$seed" --out "$at/llm"
}

encoder() {
  make pretrain-encoder "$world/pairs/train.parquet" --seed "$seed" --out "$at/encoder"
}

diagnosed() { # MODEL ENCODER INSTRUCTIONS NAME
  make diagnose "$1" "$world/entity_images/test" --encoder "$2" --facts "$world/facts.jsonl" \
    --captions "$world/captions/train.parquet" --instructions "$3" --truth "$world/entities.parquet" --out "$at/$4"
}

worlds=()
for seed in "${seeds[@]}"; do
  at=$home/seed-$seed
  mkdir -p "$at"
  world=$(make glyph-world --seed "$seed" --out "$at/world")
  instructions=$world/instructions/train.parquet
  run_in_parallel language_model encoder
  aligned=$(make align "$at/llm" "$at/encoder" "$world/captions/train.parquet" --seed "$seed" --out "$at/aligned")
  tuned=$(make tune "$aligned" "$instructions" --seed "$seed" --out "$at/tuned")
  before() { diagnosed "$aligned" "$at/encoder" "$instructions" before; }
  after() { diagnosed "$tuned" "$at/encoder" "$instructions" diagnosis; }
  run_in_parallel before after
  worlds+=("$at/diagnosis=$world/entities.parquet")
  experiment forecast "$at/forecast.json" "$at/before" "$at/diagnosis"
done

experiment validate "$home/validation.json" "${worlds[@]}"
experiment fit "$home/verdicts.json" "${worlds[@]}"

# The same world with nothing left out of text, captions and instructions has the data that the remedies need.
seed=${seeds[0]}
at=$home/seed-$seed
world=$at/world
if [ ${#remedies[@]} -gt 0 ]; then
  complete=$(make glyph-world --seed "$seed" --text-share 1 --instructed-share 1 --captioned-share 1 --out "$at/complete")
fi

remedy() { # NAME: the model after it, tuned for as long as the first one
  local llm=$at/llm encoder=$at/encoder captions=$world/captions/train.parquet
  local instructions=$world/instructions/train.parquet names=$at/diagnosis/remedies/encoder.txt sources only=()
  case $1 in
    encoder)
      if [ -f "$names" ]; then only=(--only-entities "$names"); fi
      encoder=$(make distill-encoder "$encoder" "$world/entity_images/train" ${only[@]+"${only[@]}"} \
        --names "$world/names.txt" --replay "$world/pairs/train.parquet" --seed "$seed" --out "$at/encoder-remediated")
      ;;
    language)
      mapfile -t sources < <(text_sources "$complete")
      llm=$(make mix "${sources[@]}" --tokenizer "$at/tokenizer" --out "$at/corpus-complete" |
        make pretrain - --from "$llm" --seed "$seed" --out "$at/llm-remediated")
      ;;
    projector) captions=$complete/captions/train.parquet ;;
    tuning) instructions=$complete/instructions/train.parquet ;;
  esac
  make align "$llm" "$encoder" "$captions" --seed "$seed" --out "$at/aligned-$1" |
    make tune - "$instructions" --seed "$seed" --out "$at/tuned-$1" >/dev/null
  diagnosed "$at/tuned-$1" "$encoder" "$instructions" "after-$1" >/dev/null
}

after_remedies=()
for name in ${remedies[@]+"${remedies[@]}"}; do
  remedy "$name"
  after_remedies+=("$name=$at/after-$name")
done
if [ ${#after_remedies[@]} -gt 0 ]; then
  experiment remedies "$home/gains.json" "$at/diagnosis" "${after_remedies[@]}"
fi

report=$(priorkit report "$at/diagnosis" "$at/before" --out "$home/report")
echo "report: $report/report.html"
