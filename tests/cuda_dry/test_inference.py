"""Scoring, generation, ranks and alignment on CUDA, as far as can be checked without one: devices, dtypes, reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from priorkit.data.images.decoding import ImageRef
from priorkit.inference import generation
from priorkit.inference.decoding.fixed_cache import FixedBatch
from priorkit.inference.likelihood import scoring
from priorkit.inference.likelihood.requests import LikelihoodRequest
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.inference.prefill import prefill
from priorkit.inference.prompt_inputs import PromptInputs
from priorkit.models.vision.encoder import Encoder
from priorkit.scoring.representations.neighbors import nearest_neighbors
from priorkit.scoring.representations.ranks import RankCounter, most_similar
from tests.support.chat_models import make_encoder, make_llm, make_tokenizer
from tests.support.cuda_dry import BF16, CUDA, DeviceRecord, check_count, dry_cuda
from tests.support.evaluation_models import build_llava, picture
from tests.support.lion_models import build_base, build_lion

NO_IMAGE = PromptInputs(())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def request(item: int, context: list[int], *continuations: list[int]) -> LikelihoodRequest:
    ends = tuple(tuple(tokens) for tokens in continuations)
    return LikelihoodRequest(item, tuple(context), ends, tuple(range(len(ends))))


def reads(record: DeviceRecord) -> list[str]:
    """Reads of values, without the copies of inputs that every batch brings."""
    return [wait for wait in record.waits if not wait.startswith("copy from")]


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(("plain", "trees"), [(True, False), (False, True), (False, False)])
def test_options_of_texts(tokenizer: Any, single: bool, plain: bool, trees: bool) -> None:
    model = make_llm(tokenizer).eval()
    subject = ModelAdapter(model, tokenizer, 128)
    # What is found out by trying reads the scores; the first pass of a model then computes a few more.
    subject.__dict__.update(plain_head=plain, takes_masks=plain, takes_trees=trees)
    ends = [[5], [6, 7], [6, 8, 9]]
    requests = [request(n, [1, 2, 3 + n], *([[4, 5]] if single else ends)) for n in range(3)]
    with dry_cuda() as record:
        model.to(CUDA)
        with BF16.autocast():
            scores = scoring.score_batch(subject, requests, [NO_IMAGE] * 3)
    assert [len(row) for row in scores] == [1 if single else 3] * 3
    assert torch.bfloat16 in record.products
    # Results are copied once per pass, whatever the number of options; a mask of positions is read where texts pack.
    assert len(reads(record)) <= 2


def test_questions_about_images_and_generated_answers(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    llava = build_llava(tokenizer)
    check_multimodal(ModelAdapter(llava.model, tokenizer, llava.max_length, llava), [1, 2])


@pytest.mark.parametrize("multimodal", [False, True])
def test_a_step_that_is_recorded_waits_for_nothing(tokenizer: Any, tmp_path: Path, multimodal: bool) -> None:
    """A CUDA graph takes no reads, no copies from main memory; the cache of fixed size is the one chosen."""
    if multimodal:
        llava = build_llava(tokenizer)
        subject = ModelAdapter(llava.model, tokenizer, llava.max_length, llava)
    else:
        subject = ModelAdapter(make_llm(tokenizer).eval(), tokenizer, 128)
    rows = [[1, 2, 3], [2, 1]]
    with dry_cuda() as record, torch.no_grad(), BF16.autocast():
        subject.model.to(CUDA)
        filled = prefill(subject, rows, [NO_IMAGE] * 2, cached=True)
        batch = generation.decoding_batch(subject, filled, 4, 20)
        assert isinstance(batch, FixedBatch)
        batch._graphs = False
        record.clear()
        for _ in range(3):
            batch.step([4, 5])
        assert record.waits == []
        assert {"index_copy_", "argmax"} <= set(record.kernels)
        assert record.products == {torch.bfloat16}
        assert not {"index_put_", "sort"} & set(record.kernels)
        check_count(f"decoding[{'llava' if multimodal else 'llm'}]", sum(record.kernels.values()) // 3)
        assert len(batch.next_tokens()) == 2
    assert len(set(reads(record))) == 1


def test_lion(tmp_path: Path) -> None:
    lion = build_lion(build_base(tmp_path))
    check_multimodal(ModelAdapter(lion.model, lion.tokenizer, lion.max_length, lion), [1, 2])


def check_multimodal(subject: ModelAdapter, words: list[int]) -> None:
    assert subject.multimodal is not None
    image = subject.multimodal.model.config.image_token_id
    prompt = [1, *[image] * subject.multimodal.image_tokens, *words]
    seen = [
        PromptInputs((ImageRef(str(n), content=picture(n)),), "What is it?", "image-level") for n in range(2)
    ]
    with dry_cuda() as record:
        subject.model.to(CUDA)
        with BF16.autocast():
            requests = [request(n, prompt, [4], [5, 6]) for n in range(2)]
            assert [len(row) for row in scoring.score_batch(subject, requests, seen)] == [2, 2]
            subject.forget()
            record.clear()
            answers = generation.generate_batch(subject, [prompt, prompt], seen, max_new_tokens=3, stop={9})
    assert [len(answer) for answer in answers] == [3, 3]
    assert torch.bfloat16 in record.products
    # The features of the images are checked, and the tokens are read once per step.
    per_step = [wait for wait in reads(record) if "generate_batch" in wait]
    assert len(per_step) <= 3 * 3


def test_encoders(tokenizer: Any) -> None:
    encoder: Encoder = make_encoder()
    pixels = torch.zeros(2, 3, *encoder.prepared_size(), dtype=torch.uint8)
    with dry_cuda() as record:
        encoder.model.to(CUDA)
        with BF16.autocast():
            features = encoder.encode_images(pixels)
            texts = torch.cat(list(encoder.encode_texts(["a heron", "a boat"])))
    assert features.dtype == texts.dtype == torch.float32
    assert features.device.type == texts.device.type == "cpu"
    assert torch.bfloat16 in record.products


def test_ranks_are_counted_in_fp32_and_read_once_per_block() -> None:
    with dry_cuda() as record:
        queries, candidates = torch.empty(40, 16, device=CUDA), torch.empty(300, 16, device=CUDA)
        truth = torch.empty(40, dtype=torch.int64, device=CUDA)
        counter = RankCounter(queries, candidates, truth, query_block=20, candidate_block=100)
        record.clear()
        with BF16.autocast():
            counter.add(candidates)
        assert counter.counts.device == CUDA
        assert torch.bfloat16 not in record.products
        # Each of the 3 x 2 blocks finds its unsure pairs; each of the 3 parts is checked for zero and unit lengths.
        assert len(reads(record)) <= 6 + 3 * 2
        cosines, rows = most_similar(queries, candidates, 5)
    assert (cosines.shape, rows.shape) == ((40, 5), (40, 5))


def test_neighbors_for_representation_alignment() -> None:
    with dry_cuda():
        found = nearest_neighbors(torch.empty(50, 12, device=CUDA), 4)
        assert found.shape == (50, 4)
        assert found.device.type in ("cuda", "cpu")
