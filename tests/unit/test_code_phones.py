"""HuBERT's measures of codes and phones, and their bias."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainquant.evaluation import code_phone_statistics

frames = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), min_size=1, max_size=60)


def entropy(items):
    shares = [count / len(items) for count in Counter(items).values()]
    return -sum(share * math.log(share) for share in shares)


@given(frames)
def test_they_are_those_of_the_definitions(frames):
    codes, phones = zip(*frames)
    statistics = code_phone_statistics(np.array(codes)[:, None], np.array(phones))

    def purity(groups, of):
        members = [[x for x, g in zip(of, groups) if g == group] for group in set(groups)]
        return sum(Counter(m).most_common(1)[0][1] for m in members) / len(of)

    information = entropy(codes) + entropy(phones) - entropy(frames)
    pnmi = information / entropy(phones) if len(set(phones)) > 1 else 0.0
    expected = {"phone_purity": purity(codes, phones), "cluster_purity": purity(phones, codes),
                "pnmi": pnmi, "code_perplexity": math.exp(entropy(codes))}  # fmt: skip
    assert {key: statistics[key] for key in expected} == pytest.approx(expected, abs=1e-9)


def test_codebooks_are_averaged():
    rng = np.random.default_rng(0)
    codes_NG, phones = rng.integers(7, size=(200, 2)), rng.choice(list("abc"), 200)
    both = code_phone_statistics(codes_NG, phones)
    one, two = (code_phone_statistics(codes_NG[:, [g]], phones) for g in (0, 1))
    for key in ("phone_purity", "cluster_purity", "pnmi", "code_perplexity"):
        assert both[key] == pytest.approx((one[key] + two[key]) / 2)


def test_shuffled_codes_tell_the_bias_of_many_codes_on_few_frames():
    rng = np.random.default_rng(0)
    phones = rng.integers(10, size=3000)
    own = code_phone_statistics(phones[:, None], phones)  # codes that are the phones
    assert own["pnmi"] == pytest.approx(1) and own["shuffled"]["pnmi"] < 0.02
    noise = code_phone_statistics(rng.integers(1000, size=(3000, 1)), phones)
    assert noise["pnmi"] > 0.4
    assert noise["shuffled"]["pnmi"] == pytest.approx(noise["pnmi"], abs=0.02)


def test_a_shape_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"got \(3,\) and 3 phones; give codes\[:, None\]"):
        code_phone_statistics(np.zeros(3, int), np.array(["a", "b", "c"]))
