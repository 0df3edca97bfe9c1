#!/usr/bin/env bash
# The whole pipeline on the glyph world, on two CPU cores in minutes: one command per step.
#
# Every step prints the path of what it made, and the next one takes it. A step whose result is there
# already says so and returns at once, so this script is its own make: kill it anywhere, run it again.
# The settings stand in the recipe 'pocket' (priorkit recipe show pocket).
set -euo pipefail

home=${1:-pocket}
mkdir -p "$home"
make() { priorkit "$@" --recipe pocket; }

# A world whose priors are known: entities that are frequent, rare or absent in the encoder's pairs.
world=$(priorkit glyph-world --out "$home/world")
instructions=$world/instructions/train.parquet

# A language model that has read about the world, and one that was also tuned without seeing it.
sources=()
heldout=()
for name in visual facts arithmetic logic code python-source python-docs; do
  sources+=("$name=$world/text/$name.jsonl")
  heldout+=("$world/text/heldout/$name.jsonl")
done
tokenizer=$(make tokenizer "${sources[@]}" --out "$home/tokenizer")
llm=$(make mix "${sources[@]}" --tokenizer "$tokenizer" --out "$home/corpus" |
  make pretrain - --out "$home/llm")
blind_llm=$(make blind-tune "$llm" "$instructions" --out "$home/blind-llm")
text=$(priorkit evaluate "$llm" "${heldout[@]}" --task perplexity --out "$home/text")
blind_text=$(priorkit evaluate "$blind_llm" "${heldout[@]}" --task perplexity --out "$home/text-blind")

# An encoder with those priors; the same one remediated; what both know, on held-out typefaces.
encoder=$(make pretrain-encoder "$world/pairs/train.parquet" --out "$home/encoder")
remediated=$(make distill-encoder "$encoder" "$world/entity_images/train" \
  --replay "$world/pairs/train.parquet" --out "$home/encoder-remediated")
ranks=$(priorkit rank-e "$encoder" "$world/entity_images/test" --out "$home/ranks")
ranks_after=$(priorkit rank-e "$remediated" "$world/entity_images/test" --out "$home/ranks-remediated")

# What remediation costs elsewhere: held-out pairs of other scenes.
general=$(priorkit evaluate "$encoder" "$world/pairs/test.parquet" --task retrieval --out "$home/general")
general_after=$(priorkit evaluate "$remediated" "$world/pairs/test.parquet" --task retrieval \
  --out "$home/general-remediated")

# A multimodal model on each encoder, tuned alike.
captions=$world/captions/train.parquet
tuned=$(make align "$llm" "$encoder" "$captions" --out "$home/aligned" |
  make tune - "$instructions" --out "$home/tuned")
tuned_after=$(make align "$llm" "$remediated" "$captions" --out "$home/aligned-remediated" |
  make tune - "$instructions" --out "$home/tuned-remediated")

# How well they see, by ability and by size; and what the first one answers with the images withheld.
benchmarks=("$world/benchmarks" "$(priorkit mle-bench "$world/annotated" --out "$home/mle-bench")")
scores=$(priorkit evaluate "$tuned" "${benchmarks[@]}" --choices text --out "$home/scores")
scores_after=$(priorkit evaluate "$tuned_after" "${benchmarks[@]}" --choices text --out "$home/scores-remediated")
scores_blind=$(priorkit evaluate "$tuned" "${benchmarks[@]}" --choices text --blind --out "$home/scores-blind")

# A LoRA adapter on top, folded back into the model.
adapter=$(priorkit tune "$tuned_after" "$instructions" --train llm --lora-rank 8 --steps 30 --out "$home/adapter")
merged=$(priorkit merge-adapters "$adapter" --base "$tuned_after" --method linear --out "$home/merged")

# Does the model answer better about what its encoder knows? All of it on one page.
correlation=$(priorkit correlate "$ranks" original="$scores" remediated="$scores_after" --benchmark naming \
  --blind-evaluation "$scores_blind" --entities "$world/entities.parquet" --out "$home/correlation")
report=$(priorkit report ranks="$ranks" ranks-remediated="$ranks_after" \
  general="$general" general-remediated="$general_after" text="$text" text-blind="$blind_text" \
  original="$scores" remediated="$scores_after" blind="$scores_blind" \
  correlation="$correlation" merged="$merged" --out "$home/report")
echo "report: $report/report.html"
