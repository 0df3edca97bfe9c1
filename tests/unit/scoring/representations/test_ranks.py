"""Ranks against golden values and a float64 oracle, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from priorkit.core.errors import InputError
from priorkit.scoring.representations.rank_summary import overall_ranks, summarize_ranks
from priorkit.scoring.representations.ranks import NearestCandidates, RankCounter, most_similar, true_ranks
from tests.support.golden import GOLDEN, cases, load


def features(queries: int, candidates: int, width: int, seed: int, close: float = 0.0):
    """Random features; ``close`` in (0, 1) squeezes candidates together until float32 cannot order them."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(queries, width, generator=generator)
    candidate = torch.randn(candidates, width, generator=generator)
    if close:
        candidate = candidate[:1] * close + candidate * (1 - close)
    true = torch.randint(0, candidates, (queries,), generator=generator)
    return query, candidate, true


def oracle(query, candidate, true):
    """Ranks by extended-precision cosines of all pairs."""
    q, c = (t.double().numpy().astype(np.longdouble) for t in (query, candidate))
    q, c = q / np.sqrt((q * q).sum(1, keepdims=True)), c / np.sqrt((c * c).sum(1, keepdims=True))
    scores = (q[:, None] * c[None]).sum(-1)
    true_score = scores[np.arange(len(q)), true.numpy()][:, None]
    equal = np.abs(scores - true_score) <= 1e-14
    return 1 + ((scores > true_score) & ~equal).sum(1) + 0.5 * (equal.sum(1) - 1)


@pytest.mark.parametrize("case", cases("clip_rank_ties"), ids=lambda case: case["why"])
def test_golden_ties(case):
    given_ = case["input"]
    ranks = true_ranks(
        torch.tensor([given_["image_vector"]], dtype=torch.float32),
        torch.tensor(given_["candidate_vectors"], dtype=torch.float32),
        torch.tensor([given_["true_index"]]),
        candidate_block=3,
    )
    assert ranks.tolist() == [case["expected"]["rank"]]


def test_golden_summary_of_ties():
    golden = load("clip_rank_ties")
    ranks = np.array([case["expected"]["rank"] for case in golden["cases"]])
    summary = summarize_ranks(ranks, [case["input"]["entity"] for case in golden["cases"]], candidates=16)
    expected = golden["aggregate"]
    assert dict(zip(summary.entity, summary.mean_rank, strict=True)) == pytest.approx(
        expected["mean_rank_per_entity"], abs=1e-12
    )
    weights = summary.images / summary.images.sum()
    assert summary.mrr @ weights == pytest.approx(expected["mrr"], abs=1e-12)
    assert summary.recall_at_1 @ weights == pytest.approx(expected["r_at_1"], abs=1e-12)
    assert summary.recall_at_5 @ weights == pytest.approx(expected["r_at_5"], abs=1e-12)


def test_golden_clip_features():
    golden = load("clip_rank")
    stored = load_file(GOLDEN / "tiny-clip" / "features.safetensors")
    names = [candidate["name"] for candidate in golden["candidates"]]
    true = torch.tensor([names.index(case["input"]["entity"]) for case in golden["cases"]])
    image = next(t for n, t in stored.items() if "image" in n and t.ndim == 2)
    text = next(t for n, t in stored.items() if "text" in n and "bare" not in n and t.ndim == 2)
    assert true_ranks(image, text, true).tolist() == [case["expected"]["rank"] for case in golden["cases"]]
    cosines, rows = most_similar(image, text, 5, candidate_block=7)
    for case, row, cosine in zip(golden["cases"], rows.tolist(), cosines.tolist(), strict=True):
        assert [names[index] for index in row] == case["expected"]["top5"]
        assert cosine == pytest.approx(case["expected"]["top5_cosine"], abs=1e-5)


@pytest.mark.parametrize("close", [0.0, 0.99, 0.9999, 0.999999])
@pytest.mark.parametrize("width", [1, 3, 64, 77])
def test_equals_the_oracle_even_where_float32_ties(close, width):
    query, candidate, true = features(40, 300, width, seed=width, close=close)
    assert true_ranks(query, candidate, true).tolist() == oracle(query, candidate, true).tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.999999]), st.integers(1, 60), st.integers(1, 60))
def test_blocks_and_orders_do_not_change_a_bit(seed, close, query_block, candidate_block):
    query, candidate, true = features(37, 91, 24, seed, close)
    candidate[5] = candidate[50]
    candidate[7] = 3 * candidate[50]
    true[0] = 50
    expected = true_ranks(query, candidate, true)
    blocked = true_ranks(query, candidate, true, query_block=query_block, candidate_block=candidate_block)
    assert torch.equal(blocked, expected)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(37, generator=generator), torch.randperm(91, generator=generator)
    shuffled = true_ranks(query[rows], candidate[columns], columns.argsort()[true[rows]])
    assert torch.equal(shuffled, expected[rows])


def test_scale_does_not_matter_and_multiples_tie():
    query, candidate, true = features(20, 50, 16, seed=1)
    query, candidate = query.double(), candidate.double()
    scales = torch.linspace(0.01, 100, 50)[:, None].double()
    assert torch.equal(true_ranks(query * 7.3, candidate * scales, true), true_ranks(query, candidate, true))
    doubled = torch.cat([candidate, candidate * 3.7])
    assert torch.equal(true_ranks(query, doubled, true), 2 * true_ranks(query, candidate, true) - 0.5)


def test_low_precision_products_give_the_same_ranks():
    query, candidate, true = features(30, 200, 64, seed=3)
    expected = true_ranks(query, candidate, true)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(true_ranks(query, candidate, true), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(true_ranks(query, candidate, true), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_nearest_are_those_of_fp32_in_a_run_of_low_precision():
    torch.manual_seed(5)
    queries = torch.nn.functional.normalize(torch.randn(4, 64), dim=1)
    near = torch.nn.functional.normalize(torch.randn(1, 64) + 1e-3 * torch.randn(500, 64), dim=1)
    expected = most_similar(queries, near, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosines, rows = most_similar(queries, near, 5)
    assert cosines.dtype == torch.float32
    assert torch.equal(cosines, expected[0])
    assert torch.equal(rows, expected[1])


def test_half_precision_features_are_accepted():
    query, candidate, true = (
        t.bfloat16() if t.is_floating_point() else t for t in features(20, 40, 8, seed=2)
    )
    assert true_ranks(query, candidate, true).tolist() == oracle(query, candidate, true).tolist()


def test_problems_are_named():
    query, candidate, true = features(4, 6, 8, seed=0)
    with pytest.raises(InputError, match="same width"):
        true_ranks(query[:, :7], candidate, true)
    with pytest.raises(InputError, match="true index 9 of query 2"):
        true_ranks(query, candidate, torch.tensor([0, 1, 9, 3]))
    candidate[3] = 0
    with pytest.raises(InputError, match="candidates, row 3"):
        true_ranks(query, candidate, true)
    query[1, 0] = torch.nan
    with pytest.raises(InputError, match="queries, row 1"):
        true_ranks(query, candidate, true)


def test_summary_closed_form_and_intervals():
    summary = summarize_ranks(np.array([1.0, 3.0, 6.0]), ["owl", "owl", "emu"], candidates=11)
    assert summary.entity == ["owl", "emu"]
    assert summary.images.tolist() == [2, 1]
    assert summary.mean_rank.tolist() == [2, 6]
    assert summary.percentile == pytest.approx([0.1, 0.5])
    assert summary.mean_log_rank == pytest.approx([np.log(3) / 2, np.log(6)])
    assert summary.mrr == pytest.approx([2 / 3, 1 / 6])
    assert summary.recall_at_1.tolist() == [0.5, 0]
    assert summary.recall_at_5.tolist() == [1, 0]
    overall = overall_ranks(summary, seed=0)
    assert overall["mean_rank"].value == 4
    assert (overall["mean_rank"].low, overall["mean_rank"].high) == (2, 6)
    assert list(summary.columns())[:3] == ["entity", "images", "mean_rank"]
    with pytest.raises(InputError, match="0 ranks"):
        summarize_ranks(np.array([]), [], candidates=2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.lists(st.integers(0, 59), max_size=4), st.integers(1, 3))
def test_candidates_may_come_in_any_parts(seed, cuts, kept):
    query, candidate, true = features(12, 60, 8, seed=seed)
    candidate[40:50] = candidate[:10]
    true = true % 10
    bounds = sorted({10, 60, *(cut for cut in cuts if cut > 10)})
    counter = RankCounter(query, candidate[:10], true, query_block=5, candidate_block=7)
    nearest = NearestCandidates(query, kept, candidate_block=9)
    for first, stop in reversed(list(zip([0, *bounds], bounds, strict=False))):
        counter.add(candidate[first:stop], first)
        nearest.add(candidate[first:stop], first)
    assert torch.equal(counter.ranks, true_ranks(query, candidate, true))
    at_once = most_similar(query, candidate, kept)
    torch.testing.assert_close(nearest.cosines, at_once[0])
    nearest.merge(nearest.cosines[:, :0], nearest.rows[:, :0])
    torch.testing.assert_close(nearest.cosines, at_once[0])


def test_the_features_are_not_copied():
    import resource

    query, candidate, true = features(500, 60_000, 256, seed=1)
    query, candidate = (torch.nn.functional.normalize(rows, dim=1) for rows in (query, candidate))
    true_ranks(query[:10], candidate[:1000], true[:10] % 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    true_ranks(query, candidate, true)
    # The features take 61 MB; a copy in float64 would add twice that.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 << 10
