"""Align an encoder with a language model: train the projector between them on captions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from priorkit.core import runtime
from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError, UsageError
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import Plan, Work, produce
from priorkit.core.settings import StepSettings, argument, option, redefault
from priorkit.core.values import split_commas
from priorkit.training.instruction_settings import InstructionSettings, Sources
from priorkit.training.settings import MemorySettings, TrainingSettings, check_sharing


def _layers(value: Any) -> Any:
    """Let a number alone stand for a list of one."""
    return [value] if isinstance(value, int) else split_commas(value)


Layers = Annotated[tuple[int, ...], BeforeValidator(_layers), Field(min_length=1)]


class AlignSettings(MemorySettings, TrainingSettings, InstructionSettings, StepSettings):
    """Options of ``priorkit align``."""

    step: ClassVar[str] = "align"
    kind: ClassVar[str] = "mllm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit align llm encoder world/captions/train.parquet --epochs 2 --out aligned",
        "priorkit align meta-llama/Llama-3.2-1B openai/clip-vit-large-patch14-336 blip_558k.json "
        "--batch-size 256 --image-tokens 576 --warmup-steps 130 --out aligned",
    )

    llm: str = argument("Language model.", accepts=("llm",), hub="model")
    encoder: str = argument("Encoder whose image tower sees.", accepts=("encoder",), hub="model")
    captions: Sources = argument(
        "Image captions as conversations in LLaVA's format (JSON, JSON Lines, parquet); several as NAME=PATH.",
        accepts=("world",),
        metavar="CAPTIONS",
        hub="dataset",
    )
    feature_layer: Layers = option(
        (-2,),
        "Hidden state of the encoder that the projector reads; several are set side by side.",
        metavar="N",
    )
    class_token: bool = option(
        False, "Let the projector read the encoder's class token beside the patches; LLaVA drops it."
    )
    projector: Literal["mlp", "linear"] = option(
        "mlp", "Two layers with GELU between them as in LLaVA 1.5, or one linear map."
    )
    image_tokens: int | None = option(
        None,
        "Patches of an image, a square number such as 576; the encoder then reads images of another resolution, "
        "its position embeddings interpolated. Its own where not given.",
        metavar="N",
        ge=1,
    )
    batch_size: int = redefault(TrainingSettings, "batch_size", 32)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 1e-3)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 20)
    weight_decay: float = redefault(TrainingSettings, "weight_decay", 0.0)


NO_LLAVA = ("gpt2", "gpt_neo", "opt", "bloom", "gpt_bigcode")
"""Families whose decoder keeps its embeddings where LLaVA does not find them."""


def plan(settings: AlignSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check model, encoder and captions from headers."""
    from priorkit.models.chat import check_template
    from priorkit.models.encoder import check_encoder, load_config
    from priorkit.models.image_tower import patch_side
    from priorkit.models.llm import check_llm
    from priorkit.models.tokenizer import IMAGE, load_tokenizer
    from priorkit.models.towers import tower_config
    from priorkit.training.reading import check_sources

    check_sharing(settings)
    language = check_llm(inputs["llm"].path)
    if language["model_type"] in NO_LLAVA:
        raise InputError(
            f"transformers' LLaVA cannot hold a language model of type '{language['model_type']}'",
            where=inputs["llm"].given,
            hint="use a Llama-shaped one",
        )
    check_template(load_tokenizer(inputs["llm"].path), inputs["llm"].path, IMAGE)
    check_encoder(inputs["encoder"].path, text=False)
    vision = tower_config(load_config(inputs["encoder"].path))
    facts = check_sources(inputs, "captions")
    layers = getattr(vision, "num_hidden_layers", None)
    for layer in settings.feature_layer:
        if layers is not None and not -layers - 1 <= layer <= layers:
            raise UsageError(
                f"the image tower has {layers} layers; hidden states are numbered {-layers - 1} to {layers}",
                where="--feature-layer",
            )
    if settings.image_tokens and math.isqrt(settings.image_tokens) ** 2 != settings.image_tokens:
        raise UsageError(
            f"{settings.image_tokens} is no square number; patches form a square grid",
            where="--image-tokens",
        )
    side, size = patch_side(vision), getattr(vision, "image_size", 0)
    patches = settings.image_tokens or ((size // side) ** 2 if side and isinstance(size, int) else 0)
    longest = settings.max_length or int(language.get("max_position_embeddings") or 2048)
    if patches >= longest:
        raise UsageError(
            f"an image takes {patches} tokens, the longest conversation is {longest}", where="--max-length"
        )
    width, inner = int(getattr(vision, "hidden_size", 0)), int(language["hidden_size"])
    count = (width * len(settings.feature_layer) + 1) * inner + (inner + 1) * inner * (
        settings.projector == "mlp"
    )
    return Plan(
        [
            *facts,
            (
                "image",
                f"{patches} tokens of width {width}" if patches and width else "as the encoder gives it",
            ),
            ("projector", f"{settings.projector}, {count:,} parameters, trained"),
            ("llm, encoder", "frozen"),
        ]
    )


CALIBRATION_IMAGES = 64
"""Images by which the fresh projector's scale is set."""


def execute(settings: AlignSettings, work: Work) -> None:
    """Join the two by a fresh projector, freeze all else, train it to let the model caption."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    import torch

    from priorkit.data.batching import COARSE, FINE
    from priorkit.data.pixels import Pixels
    from priorkit.models.attention import choose_attention
    from priorkit.models.encoder import load_encoder
    from priorkit.models.llm import load_llm
    from priorkit.models.multimodal import PARTS, compose, is_linear
    from priorkit.models.tokenizer import load_tokenizer
    from priorkit.training.instruction import InstructionObjective
    from priorkit.training.learning import Prepared, learn, part_table
    from priorkit.training.llava import chat_of, compile_decoder
    from priorkit.training.reading import mean_length, read_samples
    from priorkit.training.views import views_of

    folder = work.inputs["llm"].path
    llm, tokenizer = load_llm(folder), load_tokenizer(folder)
    rows = llm.get_input_embeddings().weight.shape[0]
    given_template = bool(tokenizer.chat_template)
    multimodal = compose(
        llm,
        tokenizer,
        load_encoder(work.inputs["encoder"].path, text=False),
        settings.feature_layer[0] if len(settings.feature_layer) == 1 else settings.feature_layer,
        settings.class_token,
        settings.seed,
        settings.projector,
        settings.image_tokens,
    )
    grown = multimodal.model.get_input_embeddings().weight.shape[0] - rows
    model = multimodal.model.to(started.device)
    choose_attention(model, started.device.type)
    model.requires_grad_(False)
    projector = model.model.multi_modal_projector
    projector.requires_grad_(True)
    if is_linear(model):
        projector.linear_2.requires_grad_(False)
    chat = chat_of(multimodal, settings.max_length)
    samples, figures = read_samples(settings, work, "captions", chat, settings.seed, images=True)
    if not len(samples.images):
        raise InputError("no sample has an image; there is nothing to align", where=str(settings.captions))
    pixels = Pixels(samples.images, multimodal.prepare)
    multimodal.calibrate(
        torch.stack([pixels[index] for index in range(min(len(pixels), CALIBRATION_IMAGES))])
    )
    length = mean_length(chat, samples) if settings.tokens else 1.0
    passes = settings.total_steps(len(samples), length) * settings.batch_size / len(samples)
    views = views_of(
        multimodal, pixels, trained=False, runtime=started, workers=settings.workers, passes=passes
    )
    objective = InstructionObjective(
        multimodal,
        samples,
        chat,
        views,
        packing=settings.packing,
        lengths_per_octave=COARSE if settings.compile else FINE,
    )
    if settings.compile:
        compile_decoder(model.model.language_model)
    figures |= {
        "image_tokens": multimodal.image_tokens,
        "vocabulary_grown_by": grown,
        "chat_template": "the language model's" if given_template else "default",
    }
    prepared = Prepared(
        objective,
        part_table(model, multimodal.part_of, {"projector": settings.learning_rate}, PARTS),
        multimodal.save,
        length,
        figures,
        lambda: {"useful_share": objective.useful_share},
    )
    learn(prepared, settings, started, work, settings.step)


def run(settings: AlignSettings) -> Artifact | None:
    """Align a language model with an encoder; see :class:`AlignSettings`."""
    return produce(settings, plan, execute)
