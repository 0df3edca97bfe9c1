"""Align an encoder with a language model: train the projector between them on captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from priorkit.core import runtime
from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError, UsageError
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import Plan, Work, produce
from priorkit.core.settings import Count, StepSettings, argument, option, redefault
from priorkit.data.conversations import check_conversations, read_conversations
from priorkit.data.rejects import Rejects
from priorkit.training.settings import TrainingSettings


class AlignSettings(TrainingSettings, StepSettings):
    """Options of ``priorkit align``."""

    step: ClassVar[str] = "align"
    kind: ClassVar[str] = "mllm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit align llm encoder world/captions/train.parquet --epochs 2 --out aligned",
        "priorkit align meta-llama/Llama-3.2-1B openai/clip-vit-large-patch14-336 blip_558k.json "
        "--batch-size 256 --learning-rate 1e-3 --out aligned",
    )

    llm: str = argument("Language model.", accepts=("llm",), hub="model")
    encoder: str = argument("Encoder whose image tower sees.", accepts=("encoder",), hub="model")
    captions: str = argument(
        "Image captions as conversations in LLaVA's format (JSON, JSON Lines, parquet).",
        accepts=("world",),
        metavar="CAPTIONS",
        hub="dataset",
    )
    feature_layer: int = option(-2, "Hidden state of the encoder that the projector reads.")
    class_token: bool = option(
        False, "Let the projector read the encoder's class token beside the patches; LLaVA drops it."
    )
    max_length: Count = option(
        0, "Longest conversation in tokens, images included; 0 for what the model takes.", metavar="N"
    )
    reject_limit: float = option(0.01, "Share of broken samples tolerated, 0 to 1.", ge=0, le=1)
    batch_size: int = redefault(TrainingSettings, "batch_size", 32)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 1e-3)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 20)
    weight_decay: float = redefault(TrainingSettings, "weight_decay", 0.0)


NO_LLAVA = ("gpt2", "gpt_neo", "opt", "bloom", "gpt_bigcode")
"""Families whose decoder keeps its embeddings where LLaVA does not find them."""


def plan(settings: AlignSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check model, encoder and captions from headers."""
    from priorkit.models.encoder import check_encoder
    from priorkit.models.llm import check_llm

    language = check_llm(inputs["llm"].path)
    if language["model_type"] in NO_LLAVA:
        raise InputError(
            f"transformers' LLaVA cannot hold a language model of type '{language['model_type']}'",
            where=inputs["llm"].given,
            hint="use a Llama-shaped one",
        )
    vision = check_encoder(inputs["encoder"].path)["vision_config"]
    check_conversations(inputs["captions"].path)
    layers = int(vision.get("num_hidden_layers", 12))
    if not -layers - 1 <= settings.feature_layer <= layers:
        raise UsageError(
            f"the image tower has {layers} layers; hidden states are numbered {-layers - 1} to {layers}",
            where="--feature-layer",
        )
    patches = (int(vision.get("image_size", 224)) // int(vision.get("patch_size", 32))) ** 2
    longest = settings.max_length or int(language.get("max_position_embeddings") or 2048)
    if patches >= longest:
        raise UsageError(
            f"an image takes {patches} tokens, the longest conversation is {longest}", where="--max-length"
        )
    width, inner = int(vision["hidden_size"]), int(language["hidden_size"])
    return Plan(
        [
            ("image", f"{patches} tokens of width {width}"),
            ("projector", f"{(width + 1) * inner + (inner + 1) * inner:,} parameters, trained"),
            ("llm, encoder", "frozen"),
        ]
    )


CALIBRATION_IMAGES = 64
"""Images by which the fresh projector's scale is set."""


def execute(settings: AlignSettings, work: Work) -> None:
    """Join the two by a fresh projector, freeze all else, train it to let the model caption."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    import torch

    from priorkit.data.imageset import images_of, usable
    from priorkit.data.pixels import Pixels
    from priorkit.models.attention import choose_attention
    from priorkit.models.chat import ChatTokenizer
    from priorkit.models.encoder import load_encoder
    from priorkit.models.llm import load_llm
    from priorkit.models.multimodal import compose
    from priorkit.models.tokenizer import load_tokenizer
    from priorkit.training.instruction import MultimodalObjective, fitting
    from priorkit.training.loop import train

    rejects = Rejects(settings.reject_limit)
    samples = read_conversations(work.inputs["captions"].path, rejects)
    samples = usable(samples, rejects, settings.captions)
    if not any(sample.images for sample in samples):
        raise InputError("no sample has an image; there is nothing to align", where=settings.captions)
    folder = work.inputs["llm"].path
    encoder = load_encoder(work.inputs["encoder"].path)
    multimodal = compose(
        load_llm(folder),
        load_tokenizer(folder),
        encoder,
        settings.feature_layer,
        settings.class_token,
        settings.seed,
    )
    multimodal.model.to(started.device)
    choose_attention(multimodal.model, started.device.type)
    multimodal.model.requires_grad_(False)
    multimodal.model.model.multi_modal_projector.requires_grad_(True)
    longest = settings.max_length or multimodal.max_length
    chat = ChatTokenizer(multimodal.tokenizer, multimodal.image_tokens, longest)
    samples = fitting(chat, samples, rejects, settings.captions)
    rejects.write(work.path)
    pixels = Pixels(images_of(samples), multimodal.prepare)
    multimodal.calibrate(
        torch.stack([pixels[index] for index in range(min(len(pixels), CALIBRATION_IMAGES))])
    )
    objective = MultimodalObjective(multimodal, samples, chat, pixels, {}, train_encoder=False)
    steps = settings.total_steps(len(samples), 1)
    summary = train(objective, settings, started, work.path, work.state, steps, settings.step)
    if runtime.rank() == 0:
        multimodal.save(work.path)
    work.metrics.update(
        loss=summary.loss,
        steps=summary.steps,
        samples=len(samples),
        rejected=len(rejects),
        tokens=summary.weight,
    )
    work.cost.update(
        training_seconds=summary.seconds,
        samples_per_second=summary.steps * settings.batch_size / summary.seconds,
    )


def run(settings: AlignSettings) -> Artifact | None:
    """Align a language model with an encoder; see :class:`AlignSettings`."""
    return produce(settings, plan, execute)
