"""Align an encoder with a language model: train the projector between them on captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from priorkit.core import runtime
from priorkit.core.errors import InputError, UsageError
from priorkit.core.inputs import Input
from priorkit.core.settings import StepSettings, argument, option, redefault
from priorkit.core.step import Step
from priorkit.core.values import split_commas
from priorkit.core.work import Plan, Work
from priorkit.training.engine.settings import MemorySettings, TrainingSettings, check_sharding
from priorkit.training.finetuning.settings import InstructionSettings, Sources


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
    also_encoder: tuple[str, ...] = option(
        (),
        "Encoder whose patches lie beside the first one's, channel after channel; repeat for several. The "
        "model then loads where priorkit is installed, and not in vLLM.",
        accepts=("encoder",),
        hub="model",
        metavar="ENCODER",
        advanced=True,
    )
    feature_layer: Layers = option(
        (-2,),
        "Hidden state of the encoder that the projector reads; several are set side by side.",
        metavar="N",
    )
    class_token: bool = option(
        False,
        "Let the projector read the encoder's class token beside the patches; LLaVA drops it.",
        advanced=True,
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
    resize: Literal["crop", "squash", "pad"] | None = option(
        None,
        "How images become squares: the middle cut out, both sides scaled (normalised boxes stay valid), or "
        "padded by the mean colour as LLaVA 1.5 does. As the encoder was trained where not given.",
        advanced=True,
    )
    batch_size: int = redefault(TrainingSettings, "batch_size", 32)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 1e-3)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 20)
    weight_decay: float = redefault(TrainingSettings, "weight_decay", 0.0)


NO_LLAVA = ("gpt2", "gpt_neo", "opt", "bloom", "gpt_bigcode")
"""Families whose decoder keeps its embeddings where LLaVA does not find them."""


def plan(settings: AlignSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check model, encoder and captions from headers."""
    from priorkit.models.folder import parameter_count
    from priorkit.models.language.causal_lm import check_llm
    from priorkit.models.language.chat_template import check_chat_template
    from priorkit.models.language.tokenizer import IMAGE, load_tokenizer
    from priorkit.models.vision.image_tower import patch_side
    from priorkit.models.vision.loading import check_encoder, load_config
    from priorkit.models.vision.preprocessing import prepared_side
    from priorkit.models.vision.towers import tower_config
    from priorkit.training.finetuning.conversation_source import check_sources

    check_sharding(settings)
    language = check_llm(inputs["llm"].path)
    if language["model_type"] in NO_LLAVA:
        raise InputError(
            f"transformers' LLaVA cannot hold a language model of type '{language['model_type']}'",
            where=inputs["llm"].given,
            hint="use a Llama-shaped one",
        )
    check_chat_template(load_tokenizer(inputs["llm"].path), inputs["llm"].path, IMAGE)
    towers: list[Any] = []
    for source in _encoders(inputs):
        check_encoder(source.path, text=False)
        towers.append(tower_config(load_config(source.path)))
    vision = towers[0]
    facts = check_sources(inputs, "captions")
    _check_layers(settings, towers)
    if settings.image_tokens and math.isqrt(settings.image_tokens) ** 2 != settings.image_tokens:
        raise UsageError(
            f"{settings.image_tokens} is not a square number; patches form a square grid",
            where="--image-tokens",
        )
    side, size = patch_side(vision), prepared_side(inputs["encoder"].path) or getattr(vision, "image_size", 0)
    patches = settings.image_tokens or ((size // side) ** 2 if side and isinstance(size, int) else 0)
    longest = settings.max_length or int(language.get("max_position_embeddings") or 2048)
    if patches >= longest:
        raise UsageError(
            f"an image takes {patches} tokens, the longest conversation is {longest}", where="--max-length"
        )
    width = sum(int(getattr(tower, "hidden_size", 0)) for tower in towers)
    inner = int(language["hidden_size"])
    count = (width * len(settings.feature_layer) + 1) * inner + (inner + 1) * inner * (
        settings.projector == "mlp"
    )
    decoder = parameter_count(inputs["llm"].path)
    seen = sum(parameter_count(source.path, exclude="text") for source in _encoders(inputs))
    return Plan(
        [
            *facts,
            (
                "image",
                f"{patches} tokens of width {width}" if patches and width else "as the encoder gives it",
            ),
            ("projector", f"{settings.projector}, {count:,} parameters, trained"),
            ("llm, encoder", "frozen"),
        ],
        disk_bytes=FP32 * (decoder + seen + count + settings.keep * 3 * count),
        # Both models lie there twice while they are joined; later the projector has a gradient and moments.
        memory_bytes=FP32 * max(2 * (decoder + seen) + count, decoder + seen + 4 * count),
    )


def _encoders(inputs: Mapping[str, Input]) -> list[Input]:
    """The encoder and those beside it, in order."""
    beside = [label for label in inputs if label.startswith("also_encoder.")]
    return [inputs[label] for label in ("encoder", *beside)]


def _check_layers(settings: AlignSettings, towers: Sequence[Any]) -> None:
    depths = [depth for tower in towers if (depth := getattr(tower, "num_hidden_layers", None))]
    for layer in settings.feature_layer if depths else ():
        if not -min(depths) - 1 <= layer <= min(depths):
            raise UsageError(
                f"the image tower has {min(depths)} layers; hidden states are numbered {-min(depths) - 1} to "
                f"{min(depths)}",
                where="--feature-layer",
            )
        if len(towers) > 1 and layer >= 0:
            raise UsageError(
                "layers of several encoders are counted from the last",
                where="--feature-layer",
                hint=f"{layer} is {layer - depths[0] - 1} in the first",
            )
    if len(towers) > 1 and settings.class_token:
        raise UsageError(
            "class tokens have no place in the grid that several encoders share", where="--class-token"
        )


FP32 = 4
"""Bytes of a number."""

CALIBRATION_IMAGES = 64
"""Images by which the fresh projector's scale is set."""


def execute(settings: AlignSettings, work: Work) -> None:
    """Join the two by a fresh projector, freeze all else, train it to let the model caption."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    import torch

    from priorkit.data.conversations.sample_packing import COARSE, FINE
    from priorkit.data.images.pixels import Pixels
    from priorkit.models.kernels.attention import choose_attention
    from priorkit.models.language.causal_lm import load_llm
    from priorkit.models.language.tokenizer import load_tokenizer
    from priorkit.models.multimodal.llava import PARTS, has_linear_projector
    from priorkit.models.multimodal.llava_assembly import assemble_llava
    from priorkit.models.vision.loading import load_encoder
    from priorkit.training.finetuning.conversation_source import mean_length, read_samples
    from priorkit.training.finetuning.finetune import Prepared, learn, part_table
    from priorkit.training.finetuning.objective import InstructionObjective, compile_decoder
    from priorkit.training.finetuning.vision_features import views_of

    folder = work.inputs["llm"].path
    llm, tokenizer = load_llm(folder), load_tokenizer(folder)
    rows = llm.get_input_embeddings().weight.shape[0]
    given_template = bool(tokenizer.chat_template)
    multimodal = assemble_llava(
        llm,
        tokenizer,
        load_encoder(work.inputs["encoder"].path, text=False),
        settings.feature_layer[0] if len(settings.feature_layer) == 1 else settings.feature_layer,
        settings.class_token,
        settings.seed,
        settings.projector,
        settings.image_tokens,
        [load_encoder(source.path, text=False) for source in _encoders(work.inputs)[1:]],
        settings.resize,
    )
    del llm  # its weights were copied
    grown = multimodal.model.get_input_embeddings().weight.shape[0] - rows
    model = multimodal.model.to(started.device)
    choose_attention(model, started.device.type)
    model.requires_grad_(False)
    projector = model.model.multi_modal_projector
    projector.requires_grad_(True)
    if has_linear_projector(model):
        projector.linear_2.requires_grad_(False)
    chat = multimodal.chat_tokenizer(settings.max_length)
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
        part_table(model, multimodal.parameter_part, {"projector": settings.learning_rate}, PARTS),
        multimodal.save,
        length,
        figures,
        lambda: {"useful_share": objective.useful_share},
    )
    learn(prepared, settings, started, work, settings.step)


STEP = Step(AlignSettings, plan, execute)
run = STEP.run
