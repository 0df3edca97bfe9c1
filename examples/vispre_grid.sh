#!/usr/bin/env bash
# VisPRE's comparison over several encoders, language models and seeds: the six arms of examples/vispre.sh for each.
#
#   ENCODERS="clip=openai/clip-vit-large-patch14-336 metaclip=facebook/metaclip-l14-fullcc2.5b" \
#   LLMS="vicuna=vicuna qwen=Qwen/Qwen2.5-7B-Instruct" SEEDS="1 2 3" RECIPE=vispre-full ENCODER_RATE=2e-6 \
#   CAPTIONS=blip_laion_cc_sbu_558k.json QUESTIONS=birds_vqa_train.json IMAGES=birds/train.parquet \
#   HELD_OUT=birds/test.parquet PAIRS=cc3m-shards/ PAIRS_TEST=flickr30k_test.parquet BENCHMARKS=birds_vqa.jsonl \
#   NAMING=birds_vqa examples/vispre_grid.sh birds-grid
#
# The arms without stage I are tuned as much longer as stage I costs in FLOPs (MATCH=time: in seconds). Rank_e and stage
# I of an encoder and seed are made once, for all language models. One step runs at a time (PROCESSES=2: two). Finished
# steps are up to date and return at once: kill the script anywhere, run it again. To share the work, run parts of
# ENCODERS, LLMS or SEEDS into the same folder on several machines, at the end all of it on one, which then makes only
# what is missing.
set -euo pipefail

home=${1:-vispre-grid}
examples=$(dirname "${BASH_SOURCE[0]}")
read -r -a encoders <<<"${ENCODERS:?NAME=ENCODER, one or more}"
read -r -a llms <<<"${LLMS:?NAME=MODEL, one or more}"
for entry in "${encoders[@]}" "${llms[@]}"; do
  [[ $entry == *=* ]] || { echo "ENCODERS and LLMS are NAME=MODEL, got '$entry'" >&2; exit 2; }
done
: "${CAPTIONS:?}" "${QUESTIONS:?}" "${IMAGES:?}" "${HELD_OUT:?}" "${PAIRS:?}" "${PAIRS_TEST:?}" "${BENCHMARKS:?}"
export RECIPE=${RECIPE:-vispre-full} MATCH=${MATCH:-flops} SEEDS=${SEEDS:-1 2 3} PROCESSES=${PROCESSES:-1}
mkdir -p "$home"

for encoder in "${encoders[@]}"; do
  for llm in "${llms[@]}"; do
    # Each pair of models gets a page with its arms as means over seeds.
    ENCODER=${encoder#*=} LLM=${llm#*=} STAGE_ONE=$home/${encoder%%=*} \
      bash "$examples/vispre.sh" "$home/${encoder%%=*}-${llm%%=*}"
  done
done
