"""Tokeniser and caption metrics against pycocoevalcap with Java."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.scoring.answers import captions as captions_module
from priorkit.scoring.answers.captions import bleu_counts, bleu_scores, cider, rouge_l, score_captions
from priorkit.scoring.answers.ptb_tokenizer import tokenize
from tests.support.golden import cases, load

words = st.lists(
    st.sampled_from(["a", "dog", "cat", "runs", "on", "the", "red", "grass", "near", "water"]), max_size=12
)


@pytest.mark.parametrize("case", cases("ptb_tokenize"), ids=lambda case: case["why"])
def test_tokens_equal_corenlp(case):
    assert tokenize(case["input"]["sentence"]) == case["expected"]["tokens"]


@given(st.text(max_size=80))
def test_any_text_is_tokenised_without_blanks_inside(text):
    tokens = tokenize(text)
    assert all(token and token == token.lower() and " " not in token for token in tokens)


@given(words)
def test_plain_words_stay_as_they_are(tokens):
    assert tokenize(" ".join(tokens)) == tokens


@pytest.fixture(scope="module")
def scored():
    inputs = [case["input"] for case in cases("cider")]
    return score_captions([item["candidate"] for item in inputs], [item["references"] for item in inputs])


def test_corpus_values(scored):
    expected = load("cider")["aggregate"]
    assert scored.cider.corpus == pytest.approx(expected["cider"], abs=1e-9)
    assert [order.corpus for order in scored.bleu] == pytest.approx(expected["bleu"], abs=1e-9)
    assert scored.rouge_l.corpus == pytest.approx(expected["rouge_l"], abs=1e-9)


@pytest.mark.parametrize("index", range(62))
def test_values_of_each_caption(scored, index):
    expected = cases("cider")[index]["expected"]
    assert scored.cider.captions[index] == pytest.approx(expected["cider"], abs=1e-9)
    assert [order.captions[index] for order in scored.bleu] == pytest.approx(expected["bleu"], abs=1e-9)
    assert scored.rouge_l.captions[index] == pytest.approx(expected["rouge_l"], abs=1e-9)
    assert scored.parsed[index] == expected["candidate_tokens"]


def test_a_single_image_has_no_cider():
    assert score_captions(["a dog runs"], [["a dog runs"]]).cider.corpus == 0


def test_the_only_reference_repeated_scores_ten():
    captions = ["a red dog runs on the grass", "two cats sleep near water today"]
    scored = score_captions(captions, [[caption] * 5 for caption in captions])
    assert scored.cider.captions == pytest.approx([10, 10])
    assert scored.bleu[3].corpus == pytest.approx(1, abs=1e-8)
    assert scored.rouge_l.corpus == pytest.approx(1)


@given(st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_bounds_and_order(corpus):
    candidates, references = [pair[0] for pair in corpus], [pair[1] for pair in corpus]
    forward, backward = cider(candidates, references), cider(candidates[::-1], references[::-1])
    assert forward.captions == pytest.approx(backward.captions[::-1], abs=1e-12)
    assert all(-1e-9 <= score <= 10 + 1e-9 for score in forward.captions)
    assert all(
        0 <= score <= 1 + 1e-9
        for order in bleu_scores(bleu_counts(candidates, references))
        for score in order.captions
    )
    assert all(0 <= score <= 1 + 1e-9 for score in rouge_l(candidates, references).captions)


def test_lengths_in_bigrams_or_in_words_give_the_same_penalty(monkeypatch):
    inputs = [case["input"] for case in cases("cider")]
    candidates = [tokenize(item["candidate"]) for item in inputs] + [[], ["dog"]]
    references = [[tokenize(text) for text in item["references"]] for item in inputs] + [[["a", "dog"]]] * 2
    official = cider(candidates, references).captions
    of = captions_module._Vector.of

    def by_words(counts, idf, unseen):
        words = sum(count for gram, count in counts.items() if len(gram) == 1)
        return replace(of(counts, idf, unseen), bigrams=words)

    monkeypatch.setattr(captions_module._Vector, "of", by_words)
    assert cider(candidates, references).captions == official


def test_an_image_without_reference_is_named():
    with pytest.raises(InputError, match="item 1"):
        score_captions(["a", "b"], [["a"], []])
