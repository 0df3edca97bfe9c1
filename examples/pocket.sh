#!/usr/bin/env bash
# The full pipeline on the glyph world, on two CPU cores in minutes: one command per step.
#
# Every step prints the path of its output, which the next one takes. Finished steps are up to date and return
# at once: kill the script anywhere, run it again.
# The settings are in the recipe 'pocket' (priorkit recipe show pocket).
set -euo pipefail

home=${1:-pocket}
mkdir -p "$home"
make() { priorkit "$@" --recipe pocket; }

source "$(dirname "${BASH_SOURCE[0]}")/parallel.sh"

# A world whose priors are known: entities that are frequent, rare or absent in the encoder's pairs.
world=$(make glyph-world --out "$home/world")
instructions=$world/instructions/train.parquet
captions=$world/captions/train.parquet

language_model() { # pretrained on text about the world
  local sources=()
  for name in visual facts arithmetic logic code python-source python-docs; do
    sources+=("$name=$world/text/$name.jsonl")
  done
  tokenizer=$(make tokenizer "${sources[@]}" instructions="$instructions" --out "$home/tokenizer")
  make mix "${sources[@]}" --tokenizer "$tokenizer" --out "$home/corpus" | make pretrain - --out "$home/llm"
  priorkit mle-bench "$world/annotated" --out "$home/mle-bench"
}

encoder() { # with those priors
  make pretrain-encoder "$world/pairs/train.parquet" --out "$home/encoder"
}

run_in_parallel language_model encoder

# An encoder's priors on held-out typefaces, its retrieval on held-out pairs of other scenes, and the accuracy of
# a multimodal model built on it, by ability and by size.
measure() { # ENCODER SUFFIX
  priorkit rank-e "$1" "$world/entity_images/test" --out "$home/ranks$2"
  priorkit evaluate "$1" "$world/pairs/test.parquet" --task retrieval --out "$home/general$2"
  tuned=$(make align "$home/llm" "$1" "$captions" --out "$home/aligned$2" |
    make tune - instructions="$instructions" captions="$captions" --out "$home/tuned$2")
  evaluate_model "$tuned" --out "$home/scores$2"
}

evaluate_model() { # MODEL OPTIONS
  priorkit evaluate "$1" "$world/benchmarks" "$home/mle-bench" --choices text "${@:2}"
}

original() { # in addition: evaluation without the images, blind tuning, an adapter folded into its base
  measure "$home/encoder" ""
  evaluate_model "$tuned" --blind --out "$home/scores-blind"
  blind_llm=$(make blind-tune "$home/llm" "$instructions" --out "$home/blind-llm")
  heldout=("$world"/text/heldout/*.jsonl)
  priorkit evaluate "$home/llm" "${heldout[@]}" --task perplexity --out "$home/text"
  priorkit evaluate "$blind_llm" "${heldout[@]}" --task perplexity --out "$home/text-blind"
  adapter=$(make tune "$tuned" instructions="$instructions" --weight instructions=1 --train llm --lora-rank 8 \
    --steps 30 --out "$home/adapter")
  priorkit merge-adapters "$adapter" --base "$tuned" --method linear --out "$home/merged"
}

remediated() { # the encoder after remediation
  encoder=$(make distill-encoder "$home/encoder" "$world/entity_images/train" \
    --replay "$world/pairs/train.parquet" --out "$home/encoder-remediated")
  measure "$encoder" -remediated
}

run_in_parallel original remediated

# Does accuracy follow the encoder's priors? All results on one page.
correlation=$(priorkit correlate "$home/ranks" original="$home/scores" remediated="$home/scores-remediated" \
  --benchmark naming --blind-evaluation "$home/scores-blind" --entities "$world/entities.parquet" \
  --out "$home/correlation")
report=$(priorkit report ranks="$home/ranks" ranks-remediated="$home/ranks-remediated" \
  general="$home/general" general-remediated="$home/general-remediated" \
  text="$home/text" text-blind="$home/text-blind" \
  original="$home/scores" remediated="$home/scores-remediated" blind="$home/scores-blind" \
  correlation="$correlation" merged="$home/merged" --out "$home/report")
echo "report: $report/report.html"
