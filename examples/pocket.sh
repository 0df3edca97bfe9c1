#!/usr/bin/env bash
# The whole pipeline on the glyph world, on two CPU cores in minutes: one command per step.
#
# Every step prints the path of what it made, and the next one takes it. A step whose result is there
# already says so and returns at once, so this script is its own make: kill it anywhere, run it again.
set -euo pipefail

home=${1:-pocket}
mkdir -p "$home"

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
tokenizer=$(priorkit tokenizer "${sources[@]}" --vocab-size 4096 --out "$home/tokenizer")
llm=$(priorkit mix "${sources[@]}" --tokenizer "$tokenizer" --tokens 1M --out "$home/corpus" \
  --weight visual=0.2,facts=0.3,arithmetic=0.1,logic=0.1,code=0.1,python-source=0.1,python-docs=0.1 |
  priorkit pretrain - --preset pocket --batch-size 16 --learning-rate 3e-3 --warmup-steps 30 --out "$home/llm")
blind_llm=$(priorkit blind-tune "$llm" "$instructions" --steps 80 --learning-rate 1e-3 --out "$home/blind-llm")
text=$(priorkit evaluate "$llm" "${heldout[@]}" --task perplexity --out "$home/text")
blind_text=$(priorkit evaluate "$blind_llm" "${heldout[@]}" --task perplexity --out "$home/blind-text")

# An encoder with those priors; the same one remediated; what both know, on held-out typefaces.
encoder=$(priorkit pretrain-encoder "$world/pairs/train.parquet" --preset pocket --steps 1200 --out "$home/encoder")
remediated=$(priorkit distill-encoder "$encoder" "$world/entity_images/train" \
  --replay "$world/pairs/train.parquet" --steps 250 --out "$home/remediated")
ranks=$(priorkit rank-e "$encoder" "$world/entity_images/test" --out "$home/ranks")
ranks_after=$(priorkit rank-e "$remediated" "$world/entity_images/test" --out "$home/ranks-remediated")
general=$(priorkit evaluate "$encoder" "$world/pairs/test.parquet" --task retrieval --out "$home/general")
general_after=$(priorkit evaluate "$remediated" "$world/pairs/test.parquet" --task retrieval --out "$home/general-remediated")

# A multimodal model on each encoder, tuned alike.
for name in encoder remediated; do
  priorkit align "$llm" "$home/$name" "$world/captions/train.parquet" --steps 200 --learning-rate 3e-3 --out "$home/aligned-$name" |
    priorkit tune - "$instructions" --steps 400 --learning-rate 1e-3 --out "$home/tuned-$name"
done
tuned=$home/tuned-encoder
tuned_after=$home/tuned-remediated

# How well they see, by ability and by size; and what the first one answers with the images withheld.
existence=$(priorkit mle-bench "$world/annotated" --out "$home/mle-bench")
benchmarks=("$world/benchmarks" "$existence")
original_scores=$(priorkit evaluate "$tuned" "${benchmarks[@]}" --choices text --out "$home/scores")
remediated_scores=$(priorkit evaluate "$tuned_after" "${benchmarks[@]}" --choices text --out "$home/scores-remediated")
blind_scores=$(priorkit evaluate "$tuned" "${benchmarks[@]}" --choices text --blind --out "$home/scores-blind")

# A LoRA adapter on top, folded back into the model.
adapter=$(priorkit tune "$tuned_after" "$instructions" --train llm --lora-rank 8 --steps 40 --out "$home/adapter")
merged=$(priorkit merge-adapters "$adapter" --base "$tuned_after" --method linear --out "$home/merged")

# Does the model answer better about what its encoder knows? All of it on one page.
correlation=$(priorkit correlate "$ranks" original="$original_scores" remediated="$remediated_scores" \
  --benchmark naming --blind-evaluation "$blind_scores" --entities "$world/entities.parquet" --out "$home/correlation")
report=$(priorkit report ranks="$ranks" ranks-remediated="$ranks_after" general="$general" \
  general-remediated="$general_after" text="$text" blind-text="$blind_text" original="$original_scores" \
  remediated="$remediated_scores" blind="$blind_scores" correlation="$correlation" merged="$merged" --out "$home/report")
echo "report: $report/report.html"
