"""Reasoning blocks in answers: what a model writes before its answer is removed before any scorer reads it.

:class:`priorkit.evaluation.tasks.item.ModelAnswer` calls :func:`final_answer` once, so all task types read the
same text; ``samples.jsonl`` keeps the raw prediction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

TAGS = (
    "think",
    "thinking",
    "thought",
    "thoughts",
    "reasoning",
    "reflection",
    "analysis",
    "scratchpad",
    "rationale",
)
"""Names of XML-like tags around reasoning, in any case: ``<think>`` ... ``</think>``."""


@dataclass(frozen=True)
class ReasoningMark:
    """How a family of models marks reasoning.

    Attributes:
        models: who writes it.
        start: pattern of the mark before the reasoning.
        end: pattern of the mark after it; may look ahead to the mark of the answer.
        example: a reasoning block.
        opened_by_prompt: whether the chat template may open the block, so that a closing mark without an opening
            one means that everything before it is reasoning.
    """

    models: str
    start: str
    end: str
    example: str
    opened_by_prompt: bool = True


_TAG = "|".join(TAGS)

MARKS = (
    ReasoningMark(
        "DeepSeek-R1, Qwen3, GLM, EXAONE, Claude and most others",
        rf"<(?:seed:)?(?:{_TAG})(?:\s[^<>]*)?>",
        rf"</(?:seed:)?(?:{_TAG})\s*>",
        "<think>It is small.</think>",
    ),
    ReasoningMark("Kimi-VL", "◁think▷", "◁/think▷", "◁think▷It is small.◁/think▷"),
    ReasoningMark("Magistral", r"\[THINK\]", r"\[/THINK\]", "[THINK]It is small.[/THINK]"),
    ReasoningMark(
        "gpt-oss",
        r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)\b[^<]*<\|message\|>",
        r"<\|(?:end|call)\|>|(?=<\|start\|>|<\|channel\|>)",
        "<|channel|>analysis<|message|>It is small.<|end|>",
        opened_by_prompt=False,
    ),
    ReasoningMark(
        "gpt-oss without its special tokens",
        r"\A\s*(?:analysis|commentary)(?=.*assistantfinal)",
        "assistantfinal",
        "analysisIt is small.assistantfinal",
        opened_by_prompt=False,
    ),
    ReasoningMark(
        "OpenThinker, Sky-T1",
        r"<\|begin_of_thought\|>",
        r"<\|end_of_thought\|>",
        "<|begin_of_thought|>It is small.<|end_of_thought|>",
    ),
    ReasoningMark(
        "Command A",
        r"<\|START_THINKING\|>",
        r"<\|END_THINKING\|>",
        "<|START_THINKING|>It is small.<|END_THINKING|>",
    ),
    ReasoningMark(
        "Apertus",
        r"<\|inner_prefix\|>",
        r"<\|inner_suffix\|>",
        "<|inner_prefix|>It is small.<|inner_suffix|>",
    ),
    ReasoningMark("MedGemma", "<unused94>", "<unused95>", "<unused94>thought\nIt is small.<unused95>"),
    ReasoningMark(
        "s1",
        r"<\|im_start\|>think\b",
        r"<\|im_start\|>answer\b",
        "<|im_start|>think\nIt is small.\n<|im_start|>answer",
        opened_by_prompt=False,
    ),
    ReasoningMark(
        "Granite 3",
        r"\A\s*Here(?:'s| is) my thought process:(?=.*Here(?:'s| is) my response:)",
        r"Here(?:'s| is) my response:",
        "Here is my thought process: It is small. Here is my response:",
        opened_by_prompt=False,
    ),
)
"""All known marks. A mark of one row ends only reasoning that a mark of the same row began."""

_MARK = re.compile(
    "|".join(
        f"(?P<start{n}>{mark.start})" + (f"|(?P<end{n}>{mark.end})" if mark.opened_by_prompt else "")
        for n, mark in enumerate(MARKS)
    ),
    re.IGNORECASE | re.DOTALL,
)
_ENDS = tuple(re.compile(mark.end, re.IGNORECASE) for mark in MARKS)

_TURN_MARKS = re.compile(
    r"\A\s*(?:<\|start\|>assistant)?(?:<\|channel\|>final\b[^<]*<\|message\|>|<\|message\|>|<\|im_start\|>answer\b"
    r"|<\|begin_of_solution\|>|<\|START_RESPONSE\|>)"
    r"|(?:<\|(?:return|end|im_end|end_of_solution|END_RESPONSE|eot_id|endoftext)\|>|</s>)\s*\Z",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"<(answer|ans|final_?answer|conclusion)>(?P<text>.*?)(?:</\1>|\Z)"
    r"|<\|begin_of_box\|>(?P<box>.*?)(?:<\|end_of_box\|>|\Z)",
    re.IGNORECASE | re.DOTALL,
)


def final_answer(prediction: str) -> str:
    """The answer in a prediction, without reasoning and without the marks around the answer.

    A block that is not closed reaches to the end. Where a closing mark comes first, as with chat templates that
    open the block in the prompt, everything before it is reasoning. If reasoning was removed, ``<answer>`` tags and
    the like around the answer are removed too; without reasoning they are left to the parsers, which published rules
    read in their own way. A prediction without any mark stays as it is, including its white space.

    Args:
        prediction: the raw text.

    Returns:
        The text that scorers read; empty if there is only reasoning.
    """
    text = _without_blocks(prediction)
    stripped = text.strip()
    bare = stripped
    while (shorter := _TURN_MARKS.sub("", bare)) != bare:
        bare = shorter.strip()
    answers = [match for match in _ANSWER.finditer(bare) if (match["text"] or match["box"] or "").strip()]
    removed = text != prediction
    if answers and (removed or (answers[-1]["box"] and answers[-1].span() == (0, len(bare)))):
        return (answers[-1]["text"] or answers[-1]["box"]).strip()
    has_answer_mark = bare != stripped and stripped.startswith("<|")
    return bare if removed or has_answer_mark else prediction


def _without_blocks(text: str) -> str:
    kept: list[str] = []
    position = 0
    while match := _MARK.search(text, position):
        group = match.lastgroup or ""
        if group.startswith("end"):
            kept, position = [], match.end()
            continue
        kept.append(text[position : match.start()])
        end = _ENDS[int(group.removeprefix("start"))].search(text, match.end())
        if end is None:
            return _joined(kept)
        position = end.end()
    return _joined([*kept, text[position:]])


def _joined(parts: Sequence[str]) -> str:
    """The text around blocks, with a line break or else a blank where a block was."""
    text = ""
    for part in parts:
        before, after = text.rstrip(), part.lstrip()
        if not before or not after:
            text = text + part if not before else text
            continue
        gap = text[len(before) :] + part[: len(part) - len(after)]
        text = before + ("\n" if "\n" in gap else " ") + after
    return text
