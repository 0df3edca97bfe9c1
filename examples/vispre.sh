#!/usr/bin/env bash
# The six arms of VisPRE's comparison: what does it take to make a multimodal model see an unknown entity?
#
#   A  zero-shot: the multimodal model as it is
#   B  tuned on the domain's questions, encoder frozen
#   C  tuned on the domain's questions, encoder trained
#   D  stage I without keep-term, then C's tuning (stage II)
#   E  stage I with keep-term, then C's tuning (stage II)
#   F  only stage I: E's encoder with a new projector, no stage II
#
# D and E differ only in the keep term: both replay general pairs. B to E train on the same images: those of
# stage I are also among the questions, which ask for their names. B to E get about equal compute: B and C are
# tuned longer, by the time of E's stage I and its new projector, converted to steps of E's tuning (B's steps are
# cheaper, since its encoder is frozen; it gets the same number). The length is computed once from the times of the
# first seed on this machine and stored in the file tuning-length; MATCH=flops converts by FLOPs, LONGER="--steps 3000"
# sets it. SEEDS="1" gives a quick run. STAGE_ONE is the folder of what depends on the encoder only, if not the same.
#
# The bins of Rank_e are those of the original encoder. Finished steps are up to date and return at once: kill
# the script anywhere, run it again.
#
# On the glyph world:   examples/vispre.sh vispre
# On real weights, give your own data and the recipe of that scale:
#
#   PROCESSES=1 RECIPE=vispre-full LLM=lmsys/vicuna-7b-v1.5 ENCODER=openai/clip-vit-large-patch14-336 \
#   CAPTIONS=blip_laion_cc_sbu_558k.json QUESTIONS=domain_vqa.json IMAGES=birds/train HELD_OUT=birds/test \
#   PAIRS=cc3m-shards/ PAIRS_TEST=flickr30k_test.parquet BENCHMARKS="birds_vqa.parquet general_vqa.parquet" \
#   NAMING=birds_vqa ENCODER_RATE=2e-6 examples/vispre.sh birds-vispre
#
# LLM and ENCODER may be hub ids; IMAGES must be a path, because examples/naming_instructions.py reads it too.
#
# A real zero-shot arm is a tuned model: BASE=llava-hf/llava-1.5-7b-hf replaces the model aligned here, for A, B
# and C. D, E and F still start from LLM with a new projector, so A to C then start from a different model than
# D to F: compare within A to C and within D to F, not across, or omit BASE.
set -euo pipefail

home=${1:-vispre}
examples=$(dirname "${BASH_SOURCE[0]}")
recipe=${RECIPE:-vispre}
encoder_rate=${ENCODER_RATE:-1e-4}
shared=${STAGE_ONE:-$home}
read -r -a seeds <<<"${SEEDS:-1 2 3}"
mkdir -p "$home" "$shared"
make() { priorkit "$@" --recipe "$recipe"; }

source "$examples/parallel.sh"

pocket() { priorkit "$@" --recipe pocket; }
if [ -z "${LLM:-}" ]; then
  # The glyph world, a language model pretrained on text about it, and an encoder with strong, weak and no priors, as
  # in pocket.sh.
  world=$(pocket glyph-world --out "$home/world")
  language_model() {
    local name sources=()
    for name in visual facts arithmetic logic code python-source python-docs; do
      sources+=("$name=$world/text/$name.jsonl")
    done
    pocket tokenizer "${sources[@]}" instructions="$world/instructions/train.parquet" --out "$home/tokenizer"
    pocket mix "${sources[@]}" --tokenizer "$home/tokenizer" --out "$home/corpus" | pocket pretrain - --out "$home/llm"
  }
  encoder() { pocket pretrain-encoder "$world/pairs/train.parquet" --out "$home/encoder"; }
  run_in_parallel language_model encoder
  LLM=$home/llm
  ENCODER=$home/encoder
  CAPTIONS=$world/captions/train.parquet
  QUESTIONS=$world/instructions/train.parquet
  IMAGES=$world/entity_images/train
  HELD_OUT=$world/entity_images/test
  PAIRS=$world/pairs/train.parquet
  PAIRS_TEST=$world/pairs/test.parquet
  BENCHMARKS=$world/benchmarks
fi
naming=${NAMING:-naming}
read -r -a benchmarks <<<"$BENCHMARKS"

# The images of stage I as questions. The file is written once: a new time stamp would count as a change.
[ -f "$home/naming.parquet" ] || python "$examples/naming_instructions.py" "$IMAGES" "$home/naming.parquet"
questions=("questions=$QUESTIONS" "naming=$home/naming.parquet")

# Rank_e of the original encoder, which defines the bins.
ranks=$(priorkit rank-e "$ENCODER" "$HELD_OUT" --out "$shared/ranks")

# Stage I without and with the keep term, with the trade-off along the interpolation to the original weights, and the
# language model with each encoder before stage II.
stage_one() { # bare|kept SEED OPTIONS...
  make distill-encoder "$ENCODER" "$IMAGES" --replay "$PAIRS" --held-out "$HELD_OUT" --off-domain "$PAIRS_TEST" \
    --seed "$2" --out "$shared/encoder-$1-$2" "${@:3}"
  align "$shared/encoder-$1-$2" "$1" "$2"
}
align() { # ENCODER NAME SEED
  make align "$LLM" "$1" "$CAPTIONS" --seed "$3" --out "$home/aligned-$2-$3"
}
base_of() { echo "${BASE:-$home/aligned-original-$1}"; } # SEED

commands=()
for seed in "${seeds[@]}"; do
  commands+=("stage_one kept $seed" "stage_one bare $seed --keep-weight 0")
  if [ -z "${BASE:-}" ]; then commands+=("align \"\$ENCODER\" original $seed"); fi
done
run_in_parallel "${commands[@]}"

# Stage II: B with the encoder frozen, the others with all parts, the encoder at a lower learning rate. D and E
# first: E's time sets the longer training of B and C, which have no stage I. All arms answer the same questions; C
# again without the images, to control for what can be answered from the names.
frozen=(--train projector,llm)
all=(--train "projector,llm,encoder" --encoder-learning-rate "$encoder_rate")
arm() { # NAME SEED
  local model=$home/tuned-$1-$2
  case $1 in
    A) model=$(base_of "$2") ;;
    B) stage_two "$(base_of "$2")" "$@" "${frozen[@]}" "${longer[@]}" ;;
    C) stage_two "$(base_of "$2")" "$@" "${all[@]}" "${longer[@]}" ;;
    D) stage_two "$home/aligned-bare-$2" "$@" "${all[@]}" ;;
    E) stage_two "$home/aligned-kept-$2" "$@" "${all[@]}" ;;
    F) model=$home/aligned-kept-$2 ;;
  esac
  score "$model" "$1" "$2"
  if [ "$1" = C ]; then score "$model" blind "$2" --blind; fi
}
stage_two() { # MODEL ARM SEED OPTIONS...
  make tune "$1" "${questions[@]}" --seed "$3" --out "$home/tuned-$2-$3" "${@:4}"
}
score() { # MODEL NAME SEED OPTIONS...
  priorkit evaluate "$1" "${benchmarks[@]}" --choices text --out "$home/scores-$2-$3" "${@:4}"
}
run_arms() { # NAME...: with every seed
  local seed name commands=()
  for seed in "${seeds[@]}"; do
    for name; do commands+=("arm $name $seed"); done
  done
  run_in_parallel "${commands[@]}"
}
run_arms E D A F
# Stored in a file: running one arm again must not change the length of the others.
[ -f "$home/tuning-length" ] || {
  echo "${LONGER:-$(python "$examples/tuning_length.py" "$home/tuned-E-${seeds[0]}" "$shared/encoder-kept-${seeds[0]}" \
    "$home/aligned-kept-${seeds[0]}" --by "${MATCH:-time}")}" >"$home/tuning-length.new"
  mv "$home/tuning-length.new" "$home/tuning-length"
}
read -r -a longer <"$home/tuning-length"
run_arms C B

# Accuracy by arm and bin of Rank_e, over the seeds; all results on one page. Made again when there are more seeds.
arms=() artifacts=()
for seed in "${seeds[@]}"; do
  for name in A B C D E F; do arms+=("$name@$seed=$home/scores-$name-$seed"); done
  artifacts+=("blind@$seed=$home/scores-blind-$seed")
  for name in bare kept; do artifacts+=("$name-$seed=$shared/encoder-$name-$seed"); done
done
correlation=$(priorkit correlate "$ranks" "${arms[@]}" --benchmark "$naming" \
  --blind-evaluation "$home/scores-blind-${seeds[0]}" --force --out "$home/correlation")
report=$(priorkit report ranks="$ranks" "${arms[@]}" "${artifacts[@]}" correlation="$correlation" --force \
  --out "$home/report")
echo "report: $report/report.html"
