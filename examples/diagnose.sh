#!/usr/bin/env bash
# Does diagnose find the part at fault? On glyph worlds it is known: every entity was left out of the encoder's pairs,
# the text, the instructions or the captions at random, 20 entities in each of the 8 combinations of the first three.
#
#   1. For each seed: a world, an encoder made blind to what its pairs leave out, a language model; the projector and the
#      language model are tuned on captions, then the language model on instructions. Diagnosed before and after these.
#   2. Verdicts against planted causes: ordered tests, a model fitted to the other worlds, baselines.
#   3. Accuracy after the instructions forecast from the evidence before them.
#   4. On the first world every remedy, diagnosed with the model fitted to the others: does the one for the cause gain most?
#      A remedy trains the part that it is named for, each for about as long; what follows that part is trained as before.
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
first=$home/seed-${seeds[0]}
mkdir -p "$home"
make() { priorkit "$@" --recipe "$recipe"; }
experiment() { python "$examples/../benchmarks/diagnosis.py" "$@" >&2; }

source "$examples/parallel.sh"

text_sources() { # WORLD: the sources of its text, by name
  local name
  for name in visual facts arithmetic logic code python-source; do
    echo "$name=$1/text/$name.jsonl"
  done
}

language_model() { # SEED WORLD NAME TOKENS START: on the text of a world, from --preset NAME or --from MODEL; as many
  # tokens as the recipe says if TOKENS is empty
  local at=$home/seed-$1 sources
  mapfile -t sources < <(text_sources "$2")
  make mix "${sources[@]}" --tokenizer "$at/tokenizer" ${4:+--tokens "$4"} --out "$at/corpus-$3" |
    make pretrain - --seed "$1" "${@:5}" --out "$at/$3"
}

first_language_model() { # SEED
  local at=$home/seed-$1 sources
  mapfile -t sources < <(text_sources "$at/world")
  make tokenizer "${sources[@]}" --out "$at/tokenizer"
  language_model "$1" "$at/world" llm "" --preset pocket
}

encoder() { # SEED
  local at=$home/seed-$1
  make pretrain-encoder "$at/world/pairs/train.parquet" --seed "$1" --out "$at/encoder-sighted"
  python "$examples/../benchmarks/blind_encoder.py" "$at/encoder-sighted" "$at/world" "$at/encoder" --seed "$1"
}

captioned() { # SEED NAME LLM ENCODER CAPTIONS: aligned and tuned on captions
  local at=$home/seed-$1 aligned
  aligned=$(make align "$3" "$4" "$5" --seed "$1" --out "$at/aligned$2")
  make tune "$aligned" "$5" --seed "$1" --out "$at/captions-adapter$2" |
    priorkit merge-adapters - --base "$aligned" --out "$at/captioned$2"
}

tuned() { # SEED NAME MODEL INSTRUCTIONS STEPS
  make tune "$3" "$4" --train llm --lora-rank 4 --steps "$5" --seed "$1" --out "$home/seed-$1/tuned$2"
}

diagnosed() { # SEED MODEL OUT [OPTIONS of diagnose]: with all evidence
  local at=$home/seed-$1
  make diagnose "$at/$2" "$at/world/entity_images/test" --encoder "$at/encoder" --facts "$at/world/facts.jsonl" \
    --captions "$at/world/captions/train.parquet" --instructions "$at/world/instructions/train.parquet" \
    --truth "$at/world/entities.parquet" --out "$at/$3" "${@:4}"
}

world() { # SEED
  make glyph-world --seed "$1" --out "$home/seed-$1/world"
}

model() { # SEED: trained and diagnosed
  local at=$home/seed-$1
  captioned "$1" "" "$at/llm" "$at/encoder" "$at/world/captions/train.parquet"
  tuned "$1" "" "$at/captioned" "$at/world/instructions/train.parquet" 300
  diagnosed "$1" captioned before
  diagnosed "$1" tuned diagnosis
}

# The same world with nothing left out of text, captions and instructions has the data that the remedies need.
complete_world() {
  make glyph-world --seed "${seeds[0]}" --text-share 1 --instructed-share 1 --captioned-share 1 --out "$first/complete"
}

remedy() { # NAME: the model after it, and its accuracy
  local seed=${seeds[0]} llm=$first/llm encoder=$first/encoder captions=$first/world/captions/train.parquet
  local instructions=$first/world/instructions/train.parquet model=$first/captioned-$1 steps=300 only=()
  case $1 in
    encoder) # for those whose verdict it is, if there are any
      if [ -s "$first/encoder.txt" ]; then only=(--only-entities "$first/encoder.txt"); fi
      encoder=$first/encoder-remediated
      make distill-encoder "$first/encoder" "$first/world/entity_images/train" ${only[@]+"${only[@]}"} \
        --names "$first/world/names.txt" --replay "$first/world/pairs/train.parquet" --seed "$seed" --out "$encoder"
      ;;
    language)
      llm=$first/llm-remediated
      language_model "$seed" "$first/complete" llm-remediated 700k --from "$first/llm"
      ;;
    projector) captions=$first/complete/captions/train.parquet ;;
    tuning) model=$first/captioned instructions=$first/complete/instructions/train.parquet steps=600 ;;
  esac
  if [ "$1" != tuning ]; then captioned "$seed" "-$1" "$llm" "$encoder" "$captions"; fi
  tuned "$seed" "-$1" "$model" "$instructions" "$steps"
  make diagnose "$first/tuned-$1" "$first/world/entity_images/test" --out "$first/after-$1"
}

verdicts() { diagnosed "${seeds[0]}" tuned verdicts ${verdict_model[@]+"${verdict_model[@]}"}; }

tries() { # REMEDY: whether it is run
  [[ " ${remedies[*]-} " == *" $1 "* ]]
}

each() { # COMMAND: with every seed
  local seed
  for seed in "${seeds[@]}"; do echo "$1 $seed"; done
}

mapfile -t commands < <(each world)
if [ ${#remedies[@]} -gt 0 ]; then commands+=(complete_world); fi
run_in_parallel "${commands[@]}"
mapfile -t commands < <(each encoder; each first_language_model)
run_in_parallel "${commands[@]}"
mapfile -t commands < <(each model)
after=() later=()
for name in ${remedies[@]+"${remedies[@]}"}; do
  after+=("$name=$first/after-$name")
  case $name in
    language) commands=("remedy language" "${commands[@]}") ;; # takes longest
    encoder) later=("remedy encoder" ${later[@]+"${later[@]}"}) ;; # next to the others, which need the first model
    *) later+=("remedy $name") ;;
  esac
done
run_in_parallel "${commands[@]}"

worlds=()
for seed in "${seeds[@]}"; do
  at=$home/seed-$seed
  worlds+=("$at/diagnosis=$at/world/entities.parquet")
  experiment forecast "$at/forecast.json" "$at/before" "$at/diagnosis"
done
experiment validate "$home/validation.json" "${worlds[@]}"
experiment fit "$home/verdicts.json" "${worlds[@]}"

if [ ${#remedies[@]} -gt 0 ]; then
  verdict_model=()
  if [ ${#worlds[@]} -gt 1 ]; then
    experiment fit "$home/verdicts-of-others.json" "${worlds[@]:1}"
    verdict_model=(--verdict-model "$home/verdicts-of-others.json")
  fi
  if tries encoder; then
    experiment entities "$first/encoder.txt" "$first/diagnosis=encoder" ${verdict_model[@]+"${verdict_model[@]}"}
  fi
  run_in_parallel ${later[@]+"${later[@]}"} verdicts
  experiment remedies "$home/gains.json" "$first/verdicts=$first/world/entities.parquet" "${after[@]}"
fi

shown=("$first/diagnosis" "$first/before")
if [ ${#remedies[@]} -gt 0 ]; then shown=("$first/verdicts" "${shown[@]}"); fi
report=$(priorkit report "${shown[@]}" --out "$home/report")
echo "report: $report/report.html"
