"""Blind tuning and the arms it is compared with, from settings to objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from priorkit.core.errors import InputError
from priorkit.core.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.conversations.conversation import Conversation
from priorkit.data.conversations.conversation_store import ConversationMixture, map_samples
from priorkit.data.conversations.sample_packing import COARSE, FINE
from priorkit.data.images.pixels import Pixels
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.language.causal_lm import load_llm
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.language.tokenizer import IMAGE, load_tokenizer
from priorkit.models.multimodal.llava import LlavaMultimodal, load_llava
from priorkit.models.multimodal.llava_assembly import ensure_image_token
from priorkit.models.multimodal.text_only import TextOnlyModel
from priorkit.training.finetuning import withheld_images
from priorkit.training.finetuning.blind_settings import BlindTuneSettings
from priorkit.training.finetuning.conversation_source import mean_length, read_samples
from priorkit.training.finetuning.finetune import Prepared, part_table
from priorkit.training.finetuning.objective import InstructionObjective, compile_decoder
from priorkit.training.finetuning.vision_features import views_of

PARTS = ("placeholder", "projector", "llm", "encoder")


PLACEHOLDER_USE = "stands in for images in this training alone; evaluate --blind drops the image's place"
"""What the manifest says of a placeholder that is kept or learnt."""


@dataclass
class _Learner:
    """The model of a blind run.

    Attributes:
        subject: a multimodal model, of which the language side trains, or a language model.
        tokenizer: its tokenizer.
        image_token: what stands for an image.
        image_tokens: positions that an image takes; 1 in a language model.
        max_length: the longest sequence it takes.
        grown: rows by which the embeddings grew for the image token.
    """

    subject: Any
    tokenizer: Any
    image_token: str
    image_tokens: int
    max_length: int
    grown: int = 0

    def save(self, folder: Path) -> None:
        """Save the model with its tokenizer or processor."""
        if isinstance(self.subject, LlavaMultimodal):
            self.subject.save(folder)
        else:
            self.subject.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def _load(settings: BlindTuneSettings, work: Work, runtime: Runtime) -> _Learner:
    folder = work.inputs["llm"].path
    if work.plan.kind == "mllm":
        subject = load_llava(folder)
        for name, parameter in subject.model.named_parameters():
            parameter.requires_grad_(subject.parameter_part(name) == "llm")
        learner = _Learner(
            subject, subject.tokenizer, subject.image_token, subject.image_tokens, subject.max_length
        )
    else:
        model, tokenizer = load_llm(folder), load_tokenizer(folder)
        grown = ensure_image_token(model, tokenizer) if settings.placeholder != "drop" else 0
        longest = int(getattr(model.config, "max_position_embeddings", None) or 2048)
        subject = TextOnlyModel(model, tokenizer.get_vocab().get(IMAGE))
        learner = _Learner(subject, tokenizer, IMAGE, 1, longest, grown)
    learner.subject.model.to(runtime.device)
    choose_attention(learner.subject.model, runtime.device.type)
    return learner


def prepare(settings: BlindTuneSettings, work: Work, runtime: Runtime) -> Prepared:
    """Load the model, make the arm's samples, build the objective."""
    learner = _load(settings, work, runtime)
    subject, model, sighted = learner.subject, learner.subject.model, settings.shows_images
    shown = learner.image_tokens if sighted else 1
    if settings.placeholder == "learned":
        shown = settings.placeholder_tokens or learner.image_tokens
    chat = ChatTokenizer(
        learner.tokenizer, shown, settings.max_length or learner.max_length, learner.image_token
    )
    samples, figures = _read(settings, work, chat)
    # Every arm trains for as many steps as the whole mixture takes, so that arms are matched in compute;
    # a length in tokens is one in tokens of the blind arm.
    reckoned, length = len(samples), 1.0
    if settings.tokens:
        length = mean_length(chat, withheld_images.Viewed(samples, Conversation.without_images))
    views = None
    if sighted:
        passes = settings.total_steps(reckoned, length) * settings.batch_size / len(samples)
        pixels = Pixels(samples.images, subject.prepare)
        views = views_of(subject, pixels, False, runtime, settings.workers, passes)
    else:
        samples = _arm(settings, work, subject, samples, chat, runtime, figures)
    if "sources" in figures:
        figures["sources"] = samples.sources
    module: nn.Module = model
    placeholder = None
    if settings.placeholder == "learned":
        table = model.get_input_embeddings().weight
        placeholder = withheld_images.placeholder_embedding(table, shown, settings.seed)
        module = nn.ModuleDict({"placeholder": placeholder, "model": model})
    objective = InstructionObjective(
        subject,
        samples,
        chat,
        views,
        packing=settings.packing,
        module=module,
        placeholder=placeholder,
        lengths_per_octave=COARSE if settings.compile else FINE,
    )
    if settings.compile:
        compile_decoder(subject.decoder)

    def save(folder: Path) -> None:
        learner.save(folder)
        if placeholder is not None:
            learnt = placeholder.weight.detach().cpu().contiguous()
            save_file({"placeholder": learnt}, folder / "placeholder.safetensors")

    figures["arm"] = settings.arm
    if settings.placeholder != "drop":
        figures["placeholder"] = PLACEHOLDER_USE
    if learner.grown:
        figures["vocabulary_grown_by"] = learner.grown
    rates: dict[str, float] = dict.fromkeys(PARTS, settings.learning_rate)
    rows = part_table(module, subject.parameter_part, rates, PARTS)
    return Prepared(
        objective,
        {part: row for part, row in rows.items() if row.total},
        save,
        length,
        figures,
        lambda: {"useful_share": objective.useful_share},
        reckoned,
    )


def _read(
    settings: BlindTuneSettings, work: Work, chat: ChatTokenizer
) -> tuple[ConversationMixture, dict[str, Any]]:
    """The conversations, drawn as every arm draws them, with images still counted."""
    sighted = settings.shows_images

    def seen(conversation: Conversation) -> Conversation:
        return conversation if sighted else withheld_images.withheld(conversation, settings.placeholder)

    change = None if sighted else withheld_images.unread
    return read_samples(
        settings, work, "instructions", chat, settings.seed, images=sighted, change=change, fits=seen
    )


def _arm(
    settings: BlindTuneSettings,
    work: Work,
    subject: Any,
    samples: ConversationMixture,
    chat: ChatTokenizer,
    runtime: Runtime,
    figures: dict[str, Any],
) -> ConversationMixture:
    """Withhold the images, and do to questions and answers what the arm asks for."""
    room = next(parent for parent in work.path.absolute().parents if parent.is_dir())
    if settings.control == "text":
        samples = map_samples(samples, lambda _, own: None if own.images else own, room)
        if not len(samples):
            raise InputError("every sample has an image; there is no text to tune on", where="--control text")
    made = map_samples(samples, lambda _, own: withheld_images.withheld(own, settings.placeholder), room)
    if settings.answerable_only or settings.abstain:
        bare = map_samples(samples, lambda _, own: own.without_images(), room)
        gains = withheld_images.answer_gains(subject, bare, chat, settings.packing, runtime)
        dark = [
            len(samples.images_of(index)) > 0 and bool(gain <= settings.answerable_gain)
            for index, gain in enumerate(gains)
        ]
        figures["unanswerable"] = sum(dark)
        figures["mean_gain"] = float(gains.mean())
        other: Callable[[Conversation], Conversation | None] = (
            withheld_images.refused if settings.abstain else lambda own: None
        )
        made = map_samples(made, lambda index, own: other(own) if dark[index] else own, room)
        if not len(made):
            raise InputError(
                "no question is answerable without its image",
                where="--answerable-gain",
                hint="lower it, or tune the model on text first",
            )
    if settings.shuffle_answers:
        plain = made
        partners, figures["unshuffled"] = withheld_images.shuffled_partners(plain, settings.seed)
        made = map_samples(
            plain,
            lambda index, own: withheld_images.with_answers(
                own, withheld_images.answers_of(plain[int(partners[index])])
            ),
            room,
        )
    return made
