"""Convert weights in other formats to safetensors: PyTorch files, GGUF, open_clip, original LLaVA checkpoints.

No other step reads these formats. Of PyTorch's files only tensors and plain containers are read; anything else in
them is refused before it is made. A file with several kinds of weights is not guessed: --format decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from priorkit.conversion.settings import ConvertSettings
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work

if TYPE_CHECKING:
    from priorkit.conversion.conversion import Conversion


def plan(settings: ConvertSettings, inputs: Inputs) -> Plan[Conversion]:
    """Recognize the format and check from headers that the weights are those of a model."""
    from priorkit.conversion.formats import plan_conversion

    conversion = plan_conversion(settings, inputs)
    return Plan(
        [("weights", conversion.source)],
        disk_bytes=conversion.bytes,
        payload=conversion,
        kind=conversion.kind,
    )


def execute(settings: ConvertSettings, work: Work[Conversion]) -> None:
    """Write the tensors one by one, then configuration, tokenizer and image processor."""
    from priorkit.conversion.tensors import write_weights

    conversion = work.plan.payload
    tensors = conversion.tensors()
    write_weights(tensors, work.path / conversion.file)
    conversion.write_rest(work.path)
    work.metrics.update(
        source=conversion.source,
        tensors=len(tensors),
        bytes=sum(tensor.bytes for tensor in tensors.values()),
    )


STEP = Step(ConvertSettings, plan, execute)
run = STEP.run
