"""LION's objective on a few samples."""

from __future__ import annotations

from priorkit.architectures.lion.objective import LionObjective
from priorkit.architectures.lion.samples import LionSamples, tokenize_samples
from priorkit.architectures.lion.tokenization import ConversationTokenizer
from priorkit.core.boxes import BoxWriter
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.data.conversations.task_conversations import TaskConversation
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.pixels import Pixels
from priorkit.data.io.rejects import Rejects
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.training.finetuning.vision_features import PerStepFeatures
from tests.support.lion_models import png

PAIRS = [
    ("What is shown in the image?", "A red circle.", "image-level"),
    ("Find the green triangle.", "[0.10,0.25,0.48,0.71]", "region-level"),
    ("What is shown?", "A small blue square.", "image-level"),
]


def samples(tags: tuple[str, ...] | None = ("red", "circle")) -> list[TaskConversation]:
    found = []
    for number, (question, answer, kind) in enumerate(PAIRS):
        turns = Turn("user", f"<image>\n{question}"), Turn("assistant", answer)
        image = ImageRef(str(number), content=png(number))
        found.append(TaskConversation(Conversation(str(number), turns, (image,)), kind, tags))
    return found


def tokenized(
    data: list[TaskConversation], chat: ChatTokenizer, tags: str, reject_limit: float = 0
) -> LionSamples:
    """All samples, tokenized."""
    tokenizer = ConversationTokenizer(chat, tags, 12, BoxWriter())
    return tokenize_samples(data, range(len(data)), tokenizer, Rejects(reject_limit))


def objective(
    lion, data: list[TaskConversation], alternating: int = 0, packing: bool = False, seed: int = 0
) -> LionObjective:
    chat = ChatTokenizer(lion.tokenizer, lion.image_tokens, lion.max_length)
    encoded = tokenized(data, chat, lion.model.config.tags)
    features = PerStepFeatures(lion, Pixels(encoded.images, lion.prepare), trained=False)
    return LionObjective(lion, encoded, features, {"aggregator": 0.5}, packing, alternating, seed=seed)
