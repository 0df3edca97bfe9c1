"""Instruction tuning against transformers' Trainer, on the same tiny LLaVA, in one run.

Both train all parts of one model of random weights on the same conversations in fp32 or bf16: one image of
64 patches each, text of log-normal length (median 60 tokens, sigma 0.8, 8 to 400), loss on the second half of the
text, batches of 8. The peer pads to the longest of a batch (its usual collator); ours packs. Tokens are random,
so ours passes samples to ``InstructionObjective`` without a chat template; packing, image features, loss, loop,
optimizer and checkpoints are priorkit's.

    python benchmarks/tune.py --rounds 2
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorkit.core.process import runtime
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.language.chat_template import TokenizedConversation
from priorkit.training.engine.loop import train
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.finetuning.batches import TrainingSample
from priorkit.training.finetuning.objective import InstructionObjective

IMAGE, PAD, PATCHES = 8191, 8190, 64


def build_model() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=64,
        patch_size=8,
    )
    text = LlamaConfig(
        vocab_size=8192, hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True, use_cache=False, pad_token_id=PAD,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=PATCHES,
        vision_feature_select_strategy="default", vision_feature_layer=-1,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config).float()


def build_rows() -> list[dict[str, torch.Tensor]]:
    generator = np.random.default_rng(0)
    rows: list[dict[str, torch.Tensor]] = []
    for length in np.clip(np.exp(generator.normal(np.log(60), 0.8, 512)), 8, 400).astype(int):
        ids = np.concatenate([[0], np.full(PATCHES, IMAGE), generator.integers(2, 8000, length)])
        labels = ids.copy()
        labels[: 1 + PATCHES + length // 2] = -100
        pixels = generator.standard_normal((3, 64, 64), dtype=np.float32)
        rows.append(
            {
                "input_ids": torch.from_numpy(ids),
                "labels": torch.from_numpy(labels),
                "pixel_values": torch.from_numpy(pixels),
            }
        )
    return rows


def peer(
    model: Any, rows: list[dict[str, torch.Tensor]], steps: int, warm_up: int, bf16: bool
) -> dict[str, float]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    shapes: list[tuple[int, int]] = []

    def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        length = max(len(row["input_ids"]) for row in batch)
        ids, labels = torch.full((len(batch), length), PAD), torch.full((len(batch), length), -100)
        for place, row in enumerate(batch):
            ids[place, : len(row["input_ids"])] = row["input_ids"]
            labels[place, : len(row["labels"])] = row["labels"]
        shapes.append((int((ids != PAD).sum()), ids.numel()))
        return {
            "input_ids": ids, "labels": labels, "attention_mask": (ids != PAD).long(),
            "pixel_values": torch.stack([row["pixel_values"] for row in batch]),
        }  # fmt: skip

    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=8, max_steps=warm_up + steps, bf16=bf16, use_cpu=True,
            learning_rate=1e-4, logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
            remove_unused_columns=False, seed=0,
        )  # fmt: skip
        Trainer(model, arguments, data_collator=collate, train_dataset=rows, callbacks=[Clock()]).train()  # pyright: ignore[reportArgumentType]
    used = shapes[warm_up : warm_up + steps]
    return {
        "samples_per_second": 8 * steps / (marks[-1] - marks[warm_up - 1]),
        "useful_share": sum(useful for useful, _ in used) / sum(size for _, size in used),
    }


class _Subject:
    """The model with its patch features, as ``LlavaMultimodal`` has them, for pixels that are already normalized."""

    def __init__(self, model: Any) -> None:
        self.model, self.device = model, torch.device("cpu")

    def patch_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.model.vision_tower(pixel_values=pixels, output_hidden_states=True).hidden_states[
            -1
        ][:, 1:]

    def hidden(
        self,
        ids: Any,
        mask: Any,
        features: Any,
        placeholder: Any = None,
        image_positions: Any = None,
        **options: Any,
    ) -> Any:
        embedded = self.model.get_input_embeddings()(ids)
        projected = self.model.model.multi_modal_projector(features).to(embedded.dtype)
        embedded = embedded.masked_scatter((ids == IMAGE)[..., None].expand_as(embedded), projected)
        return self.model.model.language_model(inputs_embeds=embedded, attention_mask=mask, **options)

    def parameter_part(self, name: str) -> str:
        return "llm"


class _Views:
    def __init__(self, subject: _Subject, rows: list[dict[str, torch.Tensor]], frozen: bool) -> None:
        self._subject, self._rows = subject, rows
        self._kept: torch.Tensor | None = None
        if frozen:
            with torch.no_grad():
                self._kept = subject.patch_features(torch.stack([row["pixel_values"] for row in rows]))

    def collate(self, images: Any) -> dict[str, torch.Tensor]:
        if self._kept is not None:
            return {"features": self._kept[torch.tensor(images)]}
        return {"pixels": torch.stack([self._rows[image]["pixel_values"] for image in images])}

    def of_batch(self, batch: Any) -> torch.Tensor:
        return batch["features"] if "features" in batch else self._subject.patch_features(batch["pixels"])


class _Objective(InstructionObjective):
    """Samples with given tokens."""

    rows: list[dict[str, torch.Tensor]]

    def sample(self, index: int, position: int) -> TrainingSample:
        row = self.rows[index]
        return TrainingSample(
            TokenizedConversation(row["input_ids"].tolist(), row["labels"].tolist(), False), (index,)
        )


class _Chat:
    """The part of a chat tokenizer that the objective needs when tokens are given."""

    max_length = 512
    image_token = "<image>"

    class tokenizer:  # noqa: N801
        pad_token_id = PAD

        @staticmethod
        def convert_tokens_to_ids(_token: str) -> int:
            return IMAGE


def ours(
    model: Any,
    rows: list[dict[str, torch.Tensor]],
    steps: int,
    warm_up: int,
    precision: str,
    packing: bool,
    frozen: bool,
) -> dict[str, float]:
    settings = TrainingSettings(
        steps=warm_up + steps, batch_size=8, learning_rate=1e-4, weight_decay=0.0, checkpoint_every=10_000
    )
    started = runtime.start(0, "cpu", precision)  # pyright: ignore[reportArgumentType]
    choose_attention(model, "cpu")
    if frozen:
        model.model.vision_tower.requires_grad_(False)
    subject = _Subject(model)
    views = _Views(subject, rows, frozen)
    objective = _Objective(subject, rows, _Chat(), views, packing=packing)  # type: ignore[arg-type]
    objective.rows = rows
    marks: list[float] = []
    inner = objective.loss

    def timed(batch: Any) -> Any:
        marks.append(time.perf_counter())
        return inner(batch)

    objective.loss = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train(objective, settings, started, Path(folder), Path(folder) / "state", warm_up + steps, "tune")
    return {
        # From the start of the first timed step to the start of the last: that many full steps.
        "samples_per_second": 8 * (steps - 1) / (marks[-1] - marks[warm_up]),
        "useful_share": objective.useful_share,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments = parser.parse_args()
    model, rows = build_model(), build_rows()
    steps, warm_up, precision = arguments.steps, arguments.warm_up, arguments.precision
    work: dict[str, Any] = {
        "trainer": lambda: peer(copy.deepcopy(model), rows, steps, warm_up, precision == "bf16"),
        "priorkit, packed": lambda: ours(copy.deepcopy(model), rows, steps, warm_up, precision, True, False),
        "priorkit, --no-packing": lambda: ours(
            copy.deepcopy(model), rows, steps, warm_up, precision, False, False
        ),
        "priorkit, packed, encoder frozen, features cached": lambda: ours(
            copy.deepcopy(model), rows, steps, warm_up, precision, True, True
        ),
    }
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in work}
    for _ in range(arguments.rounds):
        for name, run in work.items():
            measured[name].append(run())
            print(json.dumps({"what": name, **measured[name][-1]}), flush=True)
    reference = statistics.median(row["samples_per_second"] for row in measured["trainer"])
    for name, results in measured.items():
        rate = statistics.median(row["samples_per_second"] for row in results)
        print(
            f"{name:<44} {rate:7.2f} samples/s  x {rate / reference:.2f}  useful {results[0]['useful_share']:.3f}"
        )


if __name__ == "__main__":
    main()
