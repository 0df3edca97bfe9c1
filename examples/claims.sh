#!/usr/bin/env bash
# Eleven claims of three papers, each decided by the rule that recipes/claims.toml states.
#
#   examples/claims.sh [FOLDER]          on the glyph world
#   CLAIMS="V1 V2 V3" SEEDS="1 2 3" ...  only some claims; at least three seeds, as the claims ask
#   PROCESSES=4 ...                      four steps at a time; default: two
#
# Finished steps are up to date and return at once: kill the script anywhere, run it again; verdicts and bytes are
# the same. The models are those of the recipe 'pocket'; what an arm changes is written here as options.
#
# On real weights, give data laid out as a glyph world (docs/claims.md lists the files), a language model, an encoder
# and the recipe of that scale:
#
#   SCALE=real PROCESSES=1 DATA=birds LLM=lmsys/vicuna-7b-v1.5 ENCODER=openai/clip-vit-large-patch14-336 \
#   RECIPE=birds.toml LION=lion-paper BLIND_STEPS=2000 TUNE_STEPS=8000 examples/claims.sh birds-claims
set -euo pipefail

home=${1:-claims}
examples=$(dirname "${BASH_SOURCE[0]}")
claims=" ${CLAIMS:-V1 V2 V3 L1 L2 L3 S1 S2 S3 S4 S5} "
recipe=${RECIPE:-pocket}
mkdir -p "$home/scores"
make() { priorkit "$@" --recipe "$recipe"; }
wanted() { # CLAIM...: whether one of them is asked for
  local claim
  for claim; do [[ $claims != *" $claim "* ]] || return 0; done
  return 1
}
read -r -a seeds <<<"${SEEDS:-1 2 3}"

source "$examples/parallel.sh"

# Optimizer steps of 16 samples: alignment, a model tuned to the end, an arm, blind tuning or a control of it,
# questions on names, LION (of 8), LION with noisy tags.
align_steps=${ALIGN_STEPS:-150}
full_steps=${FULL_STEPS:-1200}
tune_steps=${TUNE_STEPS:-350}
blind_steps=${BLIND_STEPS:-120}
naming_steps=${NAMING_STEPS:-120}
lion_steps=${LION_STEPS:-300}
tags_steps=${TAGS_STEPS:-150}
# Stage I of VisPRE in steps of tuning of the same FLOPs, at an encoder of 0.3B and a language model of 7B that
# reads 576 patches and 100 tokens of text. An image costs stage I 6 * 0.3B * 577 FLOPs, twice with its replayed
# pair, and tuning 6 * 7B * 676 + 2 * 0.3B * 577: 0.073 samples. The recipe's 250 steps of 96 images are 110 steps of 16.
stage_one_steps=${STAGE_ONE_STEPS:-110}

# ------------------------------------------------------------------------------------------------------------------
# Data, encoders, language models

case ${SCALE:-world} in
  world)
    # As many entities as have names of two words, and many questions: they decide how narrow the intervals are.
    data=$(make glyph-world --strong 64 --weak 34 --none 34 --regions 6000 --naming-questions 10 \
      --benchmark-questions 800 --annotated 3000 --out "$home/world")
    regions=$data/regions/train.parquet
    ;;
  real)
    data=${DATA:?a folder laid out as a glyph world}
    regions=${REGIONS:-$data/regions/train.parquet}
    ;;
  *)
    echo "SCALE is 'world' or 'real', got '$SCALE'" >&2
    exit 2
    ;;
esac
captions=$data/captions/train.parquet
instructions=$data/instructions/train.parquet
questions=(instructions="$instructions" captions="$captions")

sources=()
for name in visual facts arithmetic logic code python-source python-docs; do
  sources+=("$name=$data/text/$name.jsonl")
done

# Shares of text. 'visual-N' has a share N of visual text; the rest is alike. 'plain-text' is 'visual-0.2';
# 'reasoning-text' has reasoning where it has ordinary text.
weights_of() { # TEXT
  case $1 in
    reasoning-text) echo "visual=0.2,facts=0.2,arithmetic=0.2,logic=0.2,code=0.2,python-source=0,python-docs=0" ;;
    plain-text) weights_of visual-0.2 ;;
    visual-*)
      local rest
      rest=$(awk -v visual="${1#visual-}" 'BEGIN { print (0.8 - visual) / 2 }')
      echo "visual=${1#visual-},facts=0.2,arithmetic=0,logic=0,code=0,python-source=$rest,python-docs=$rest"
      ;;
  esac
}
text_llm() { # TEXT SEED
  make pretrain "$home/corpus-$1" --seed "$2" --out "$home/llm-$1-$2"
}
if wanted S1 S2 S3 S5; then texts=(plain-text); else texts=(); fi
if wanted S1 S5; then texts+=(reasoning-text); fi
if wanted S2; then texts+=(visual-0 visual-0.1 visual-0.3 visual-0.4); fi

language_models() {
  make tokenizer "${sources[@]}" instructions="$instructions" --out "$home/tokenizer"
  if [ -z "${LLM:-}" ]; then
    make mix "${sources[@]}" --tokenizer "$home/tokenizer" --out "$home/corpus"
    make pretrain "$home/corpus" --out "$home/llm"
  fi
  local text
  for text in "${texts[@]}"; do
    make mix "${sources[@]}" --tokenizer "$home/tokenizer" --weight "$(weights_of "$text")" \
      --tokens "${TEXT_TOKENS:-900k}" --out "$home/corpus-$text"
  done
  if wanted S4; then priorkit mle-bench "$data/annotated" --out "$home/mle-bench"; fi
}
encoders() { # the encoder; after remediation; one that saw a quarter of the pairs, each as often
  if [ -z "${ENCODER:-}" ]; then make pretrain-encoder "$data/pairs/train.parquet" --out "$home/encoder"; fi
  if wanted V1; then priorkit rank-e "$encoder" "$data/entity_images/test" --out "$home/ranks"; fi
  if wanted V3; then
    make distill-encoder "$encoder" "$data/entity_images/train" --replay "$data/pairs/train.parquet" \
      --out "$home/encoder-remediated"
  fi
  if wanted S5; then
    make pretrain-encoder "$data/pairs/train.parquet" --steps "${WEAK_ENCODER_STEPS:-200}" --out "$home/encoder-weak"
  fi
}
llm=${LLM:-$home/llm}
encoder=${ENCODER:-$home/encoder}
run_in_parallel language_models encoders

# ------------------------------------------------------------------------------------------------------------------
# Arms

align() { # NAME SEED LLM ENCODER
  make align "$3" "$4" "$captions" --steps "$align_steps" --seed "$2" --out "$home/aligned-$1-$2"
}
tune() { # NAME SEED MODEL STEPS OPTIONS...
  make tune "$3" "${questions[@]}" --seed "$2" --steps "$4" --out "$home/tuned-$1-$2" "${@:5}"
}
score() { # NAME MODEL BENCHMARKS OPTIONS...
  local name benchmarks=()
  for name in $3; do benchmarks+=("$data/benchmarks/$name.parquet"); done
  priorkit evaluate "$2" "${benchmarks[@]}" --choices text --out "$home/scores/$1" "${@:4}"
}
abilities="attributes counting comparison relations existence naming"

# Questions for the names in the entity images: of all, and with two images of each entity whose prior is not strong.
names_of() { # IMAGES NAME
  [ -f "$home/naming-$2.parquet" ] || python "$examples/naming_instructions.py" "$1" "$home/naming-$2.parquet"
}
if wanted V2 V3; then
  names_of "$data/entity_images/train" all
  [ -d "$home/scarce-images" ] || python "$examples/scarce_images.py" "$data" "$home/scarce-images" --most 2
  names_of "$home/scarce-images" scarce
fi
named=("${questions[@]}" naming="$home/naming-all.parquet" --weight "instructions=0.6,captions=0.2,naming=0.2")

arm() { # NAME SEED
  local name=$1 seed=$2 run=$1-$2
  local base=$home/aligned-base-$seed plain=$home/aligned-plain-text-$seed
  case $name in
    # VisPRE
    untuned) score "$run" "$base" naming ;;
    tuned)
      tune "$name" "$seed" "$base" "$full_steps"
      score "$run" "$home/tuned-$run" "naming grounding"
      if wanted V1; then score "tuned-blind-$seed" "$home/tuned-$run" naming --blind; fi
      if wanted S4; then
        priorkit evaluate "$home/tuned-$run" "$home/mle-bench" --choices text --out "$home/scores/tuned-mle-bench-$seed"
      fi
      ;;
    questions-only)
      make tune "$base" naming="$home/naming-scarce.parquet" --weight naming=1 --seed "$seed" --steps "$naming_steps" \
        --out "$home/tuned-$run"
      score "$run" "$home/tuned-$run" naming
      ;;
    remediated)
      align "$name" "$seed" "$llm" "$home/encoder-remediated"
      make tune "$home/aligned-$run" "${named[@]}" --seed "$seed" --steps "$tune_steps" --out "$home/tuned-$run"
      score "$run" "$home/tuned-$run" "naming attributes counting"
      ;;
    tuned-longer)
      make tune "$base" "${named[@]}" --seed "$seed" --steps "$((tune_steps + stage_one_steps))" --out "$home/tuned-$run"
      score "$run" "$home/tuned-$run" "naming attributes counting"
      ;;
    # Learning to See Before Seeing
    reasoning-text | plain-text | visual-*)
      align "$name" "$seed" "$home/llm-$name-$seed" "$encoder"
      tune "$name" "$seed" "$home/aligned-$run" "$tune_steps"
      score "$run" "$home/tuned-$run" "$abilities"
      ;;
    sight-b-text-a | sight-b-text-b) # half of the tuning data too
      local text=reasoning-text
      if [ "$name" = sight-b-text-b ]; then text=plain-text; fi
      align "$name" "$seed" "$home/llm-$text-$seed" "$home/encoder-weak"
      tune "$name" "$seed" "$home/aligned-$run" "$tune_steps" --subset "$((8 * tune_steps))"
      score "$run" "$home/tuned-$run" "$abilities"
      ;;
    blind-tuned) blind_arm "$name" "$seed" "$plain" none ;;
    text-tuned) blind_arm "$name" "$seed" "$plain" text ;;
    tuned-twice) blind_arm "$name" "$seed" "$plain" sighted ;;
    shuffled-tuned) blind_arm "$name" "$seed" "$plain" shuffled ;;
    *) lion_arm "$name" "$seed" ;;
  esac
}
blind_arm() { # NAME SEED ALIGNED CONTROL
  make blind-tune "$3" "$instructions" --control "$4" --seed "$2" --steps "$blind_steps" --out "$home/first-$1-$2"
  tune "$1" "$2" "$home/first-$1-$2" "$tune_steps"
  score "$1-$2" "$home/tuned-$1-$2" "$abilities"
}

boxes=(--box-format "${BOX_FORMAT:-location-tokens}" --box-bins "${BOX_BINS:-24}")

# LION: variants on the first tuned model, frozen. The baseline has as many visual tokens, 40, as the aggregator's 36 with
# four queries of the Q-Former.
lion_arm() { # NAME SEED
  local name=$1 seed=$2 third=$((lion_steps / 3)) image=$instructions region=$regions
  local benchmarks=("$data/benchmarks/grounding.parquet" "$data/benchmarks/naming.parquet")
  case $name in
    baseline) lion_tune "$name" "$seed" "$lion_steps" baseline --queries 40 ;;
    aggregator) lion_tune "$name" "$seed" "$lion_steps" aggregator ;;
    aggregator-all-tokens) lion_tune "$name" "$seed" "$lion_steps" aggregator --queries 40 ;;
    one-stage) lion_tune "$name" "$seed" "$lion_steps" router ;;
    three-stages)
      lion "$seed" "$third" "$lion_base" image="$image" --stage 1 --out "$home/lion-stage1-$seed"
      lion "$seed" "$third" "$lion_base" region="$region" --stage 2 --out "$home/lion-stage2-$seed"
      priorkit merge-adapters "$home/lion-stage1-$seed" "$home/lion-stage2-$seed" --method mixture \
        --out "$home/lion-start-$seed"
      lion "$seed" "$third" "$home/lion-start-$seed" image="$image" region="$region" --stage 3 \
        --out "$home/lion-$name-$seed"
      ;;
    *-tags-*) # tags of which a share is wrong
      local noise=${name##*-}
      image=$home/noisy-image-$noise/train.parquet region=$home/noisy-region-$noise/train.parquet
      benchmarks=("$home/noisy-naming-$noise/naming.parquet")
      lion_tune "$name" "$seed" "$tags_steps" "${name%-*}"
      ;;
  esac
  priorkit evaluate "$home/lion-$name-$seed" "${benchmarks[@]}" --choices text --out "$home/scores/$name-$seed"
}
lion() { # SEED STEPS MODEL DATA... OPTIONS
  priorkit tune "${@:3}" "${boxes[@]}" --recipe lion --steps "$2" --batch-size 8 --subset "$((8 * $2))" --seed "$1"
}
lion_tune() { # NAME SEED STEPS VARIANT OPTIONS
  priorkit tune "$lion_base" image="$image" region="$region" "${boxes[@]}" --recipe "lion/$4" --steps "$3" --batch-size 8 \
    --subset "$((8 * $3))" --seed "$2" --out "$home/lion-$1-$2" "${@:5}"
}
noisy_tags() { # NOISE
  local file
  for file in image="$instructions" region="$regions" naming="$data/benchmarks/naming.parquet"; do
    priorkit tag-images "${file#*=}" --vocabulary "$data/names.txt" --drop 0 --corrupt "$1" \
      --out "$home/noisy-${file%%=*}-$1"
  done
}

# ------------------------------------------------------------------------------------------------------------------
# Which arms each claim needs, in three rounds: what arms start from, arms, and arms that start from other arms

first=() second=() third=()
tuned=() # the longest arm comes first
if wanted V1 S4; then tuned=("${seeds[@]}"); elif wanted L1 L2 L3; then tuned=("${seeds[0]}"); fi
second+=("${texts[@]}")
if wanted V2; then second+=(untuned questions-only); fi
if wanted V3; then second+=(remediated tuned-longer); fi
if wanted S5; then second+=(sight-b-text-a sight-b-text-b); fi
if wanted S3; then third+=(blind-tuned text-tuned tuned-twice shuffled-tuned); fi
if wanted L1; then third+=(one-stage three-stages); fi
if wanted L2; then third+=(baseline aggregator aggregator-all-tokens); fi
if wanted L3; then
  for noise in 0 0.3 0.6; do
    first+=("noisy_tags $noise")
    third+=("hard-tags-$noise" "soft-tags-$noise")
  done
fi

for seed in "${seeds[@]}"; do
  if wanted V1 V2 V3 S4 L1 L2 L3; then first+=("align base $seed \"\$llm\" \"\$encoder\""); fi
  for text in "${texts[@]}"; do first+=("text_llm $text $seed"); done
done
lion_base=$home/tuned-tuned-${seeds[0]}
on_all_seeds() { # ARM...: prints a command per seed
  local name seed
  for seed in "${seeds[@]}"; do
    for name; do echo "arm $name $seed"; done
  done
}
mapfile -t second_round < <(on_all_seeds "${second[@]}")
mapfile -t third_round < <(on_all_seeds "${third[@]}")
run_in_parallel "${first[@]}"
run_in_parallel "${tuned[@]/#/arm tuned }" "${second_round[@]}"
run_in_parallel "${third_round[@]}"

# ------------------------------------------------------------------------------------------------------------------
# The verdicts

artifacts=()
for name in "${second[@]}" "${third[@]}"; do
  # S2, S3 and S5 need these arms too, but by other labels.
  if [[ $name == *-text ]] && ! wanted S1; then continue; fi
  for seed in "${seeds[@]}"; do artifacts+=("$name@$seed=$home/scores/$name-$seed"); done
done
for seed in "${seeds[@]}"; do # what serves under further labels
  if wanted V1; then
    artifacts+=("tuned@$seed=$home/scores/tuned-$seed" "tuned-blind@$seed=$home/scores/tuned-blind-$seed")
  fi
  if wanted S4; then artifacts+=("tuned-mle-bench@$seed=$home/scores/tuned-mle-bench-$seed"); fi
  if wanted S2; then artifacts+=("visual-0.2@$seed=$home/scores/plain-text-$seed"); fi
  if wanted S5; then
    artifacts+=("sight-a-text-a@$seed=$home/scores/reasoning-text-$seed")
    artifacts+=("sight-a-text-b@$seed=$home/scores/plain-text-$seed")
  fi
done
if wanted V1; then artifacts+=(ranks="$home/ranks"); fi
if wanted L1 L2 L3; then artifacts+=(base="$home/scores/tuned-${seeds[0]}"); fi
report=$(priorkit report "${artifacts[@]}" --claims claims --entities "$data/entities.parquet" \
  --title "Claims" --out "$home/report")
echo "report: $report/report.html"
