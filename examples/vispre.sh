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
# cheaper, since its encoder is frozen; it gets the same number). The length is computed once from the times
# measured on this machine and stored in the file tuning-length; MATCH=flops converts by FLOPs, LONGER="--steps 3000"
# sets it. SEED is that of every training; STAGE_ONE is the folder of what depends on the encoder only, if not the same.
#
# The bins of Rank_e are those of the original encoder. Finished steps are up to date and return at once: kill
# the script anywhere, run it again.
#
# On the glyph world:   examples/vispre.sh vispre
# On real weights, give your own data and the recipe of that scale:
#
#   RECIPE=vispre-full LLM=lmsys/vicuna-7b-v1.5 ENCODER=openai/clip-vit-large-patch14-336 \
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

# Steps start with their libraries loaded.
[ -n "${PRIORKIT_PRELOADED:-}" ] || exec priorkit preload bash "$0" "$@"

home=${1:-vispre}
examples=$(dirname "$0")
recipe=${RECIPE:-vispre}
encoder_rate=${ENCODER_RATE:-1e-4}
shared=${STAGE_ONE:-$home}
mkdir -p "$home" "$shared"
make() { priorkit "$@" --recipe "$recipe" ${SEED:+--seed "$SEED"}; }

pocket() { priorkit "$@" --recipe pocket; }
if [ -z "${LLM:-}" ]; then
  # The glyph world, a language model pretrained on text about it, and an encoder with strong, weak and no priors, as
  # in pocket.sh.
  world=$(pocket glyph-world --out "$home/world")
  sources=()
  for name in visual facts arithmetic logic code python-source python-docs; do
    sources+=("$name=$world/text/$name.jsonl")
  done
  tokenizer=$(pocket tokenizer "${sources[@]}" instructions="$world/instructions/train.parquet" --out "$home/tokenizer")
  LLM=$(pocket mix "${sources[@]}" --tokenizer "$tokenizer" --out "$home/corpus" | pocket pretrain - --out "$home/llm")
  ENCODER=$(pocket pretrain-encoder "$world/pairs/train.parquet" --out "$home/encoder")
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

# Stage I without and with the keep term, and the trade-off along the interpolation to the original weights.
stage_one() {
  make distill-encoder "$ENCODER" "$IMAGES" --replay "$PAIRS" --held-out "$HELD_OUT" --off-domain "$PAIRS_TEST" "$@"
}
bare=$(stage_one --keep-weight 0 --out "$shared/encoder-bare")
kept=$(stage_one --out "$shared/encoder-kept")

# The models before stage II: the original encoder, and the two remediated ones, each with a new projector.
base=${BASE:-$(make align "$LLM" "$ENCODER" "$CAPTIONS" --out "$home/aligned")}
base_bare=$(make align "$LLM" "$bare" "$CAPTIONS" --out "$home/aligned-bare")
base_kept=$(make align "$LLM" "$kept" "$CAPTIONS" --out "$home/aligned-kept")

# Stage II: B with the encoder frozen, the others with all parts, the encoder at a lower learning rate. D and E
# first: their times set the longer training of B and C, which have no stage I.
frozen=(--train projector,llm)
all=(--train "projector,llm,encoder" --encoder-learning-rate "$encoder_rate")
d=$(make tune "$base_bare" "${questions[@]}" "${all[@]}" --out "$home/tuned-bare")
e=$(make tune "$base_kept" "${questions[@]}" "${all[@]}" --out "$home/tuned-kept")
# Stored in a file: running one arm again must not change the length of the others.
[ -f "$home/tuning-length" ] ||
  { echo "${LONGER:-$(python "$examples/tuning_length.py" "$e" "$kept" "$base_kept" --by "${MATCH:-time}")}" >"$home/tuning-length.new" &&
    mv "$home/tuning-length.new" "$home/tuning-length"; }
read -r -a longer <"$home/tuning-length"
b=$(make tune "$base" "${questions[@]}" "${frozen[@]}" "${longer[@]}" --out "$home/tuned-frozen")
c=$(make tune "$base" "${questions[@]}" "${all[@]}" "${longer[@]}" --out "$home/tuned")

# All arms on the same questions; C again without the images, to control for what can be answered from the names.
arms=()
for arm in "A=$base" "B=$b" "C=$c" "D=$d" "E=$e" "F=$base_kept"; do
  scores=$(priorkit evaluate "${arm#*=}" "${benchmarks[@]}" --choices text --out "$home/scores-${arm%%=*}")
  arms+=("${arm%%=*}=$scores")
done
blind=$(priorkit evaluate "$c" "${benchmarks[@]}" --choices text --blind --out "$home/scores-blind")

# Accuracy by arm and bin of Rank_e; all results on one page.
correlation=$(priorkit correlate "$ranks" "${arms[@]}" --benchmark "$naming" --blind-evaluation "$blind" \
  --out "$home/correlation")
report=$(priorkit report ranks="$ranks" "${arms[@]}" blind="$blind" bare="$bare" kept="$kept" \
  correlation="$correlation" --out "$home/report")
echo "report: $report/report.html"
