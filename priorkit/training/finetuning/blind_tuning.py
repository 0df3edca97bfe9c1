"""Blind tuning and its controls: from settings to objective."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.conversations.conversation import Conversation
from priorkit.data.images.pixels import Pixels
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.multimodal.llava import LlavaMultimodal
from priorkit.training.finetuning.blind_model import load_blind_model
from priorkit.training.finetuning.blind_samples import blind_samples, read_conversations
from priorkit.training.finetuning.blind_settings import BlindTuneSettings
from priorkit.training.finetuning.conversation_source import mean_length
from priorkit.training.finetuning.finetune import FinetuningRun, count_parameters
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.finetuning.vision_features import choose_features
from priorkit.training.finetuning.withheld_images import ChangedSamples, OtherImages, placeholder_embedding

PARTS = ("placeholder", "projector", "llm", "encoder")

PLACEHOLDER_NOTE = "replaces images in this training only; evaluate --blind drops the image's place"
"""The manifest's note on a placeholder that is kept or learned."""


def prepare(settings: BlindTuneSettings, work: Work[None], runtime: Runtime) -> FinetuningRun:
    """Load the model, read or change the samples of the arm, build the objective."""
    folder, uses_token = work.inputs.one("llm").path, settings.placeholder != "drop"
    blind = load_blind_model(folder, work.plan.kind == "mllm", uses_token, runtime, settings.chat_template)
    subject = blind.subject
    image_tokens = blind.image_tokens if settings.shows_images else 1
    if settings.placeholder == "learned":
        image_tokens = settings.placeholder_tokens or blind.image_tokens
    chat = ChatTokenizer(
        blind.tokenizer, image_tokens, settings.max_length or blind.max_length, blind.image_token
    )
    samples, metrics = read_conversations(settings, work, chat)
    # Every arm trains for as many steps as the mixture of all samples takes, so that arms are matched in
    # compute; a length in tokens counts those of the blind arm.
    epoch_samples, length = len(samples), 1.0
    if settings.tokens:
        length = mean_length(chat, ChangedSamples(samples, Conversation.without_images))
    features, shown = None, samples
    if settings.shows_images:
        assert isinstance(subject, LlavaMultimodal)  # checked in the plan
        pixels = Pixels(samples.images, subject.prepare)
        epochs = settings.total_epochs(epoch_samples, length)
        features = choose_features(subject, pixels, False, runtime, settings.workers, epochs)
        if settings.control == "shuffled":
            shown = OtherImages(samples, settings.seed)
            metrics["unshuffled"] = shown.unshuffled
    else:
        samples, changes = blind_samples(settings, work, subject, samples, chat, runtime)
        shown = samples
        metrics |= changes
    if "sources" in metrics:
        metrics["sources"] = samples.sources
    module: nn.Module = subject.model
    placeholder = None
    if settings.placeholder == "learned":
        embeddings = subject.model.get_input_embeddings().weight
        placeholder = placeholder_embedding(embeddings, image_tokens, settings.seed)
        module = nn.ModuleDict({"placeholder": placeholder, "model": subject.model})
    objective = InstructionObjective(
        subject,
        shown,
        chat,
        features,
        packing=settings.packing,
        module=module,
        placeholder=placeholder,
        lengths_per_octave=settings.lengths_per_octave,
    )

    def save(folder: Path) -> None:
        blind.save(folder)
        if placeholder is not None:
            weight = placeholder.weight.detach().cpu().contiguous()
            save_file({"placeholder": weight}, folder / "placeholder.safetensors")

    metrics["arm"] = settings.arm
    if uses_token:
        metrics["placeholder"] = PLACEHOLDER_NOTE
    if blind.grown:
        metrics["vocabulary_grown_by"] = blind.grown
    rates: dict[str, float] = dict.fromkeys(PARTS, settings.learning_rate)
    parts = count_parameters(module, subject.parameter_part, rates, PARTS)
    present = {part: parameters for part, parameters in parts.items() if parameters.total}
    return FinetuningRun(objective, present, save, length, metrics, epoch_samples)
