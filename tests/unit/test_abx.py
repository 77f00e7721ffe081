"""ABX: what is compared, errors that are known, and what cannot be measured."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from brainquant.evaluation import abx
from brainquant.evaluation.abx import SpokenPhone, abx_errors, import_fastabx, spoken_phones


@pytest.fixture
def fastabx():
    if sys.version_info < (3, 12):
        pytest.skip("fastabx needs Python 3.12")
    return pytest.importorskip("fastabx")


@pytest.fixture
def handed(monkeypatch):
    """What fastabx is given, by a stand-in that computes nothing."""
    calls = []

    class NoTriplets(ValueError):
        pass

    def task(dataset, **conditions):
        calls.append((dataset, conditions))
        if conditions.get("across") and len({*dataset.labels["speaker"]}) == 1:
            raise NoTriplets
        return "task"

    def score(task, distance, **options):
        calls.append(distance)
        return SimpleNamespace(collapse=lambda levels: 0.25)

    library = SimpleNamespace(
        EmptyTaskError=NoTriplets, Task=task, Score=score,
        InMemoryAccessor=lambda bounds, data, device: SimpleNamespace(bounds=bounds, data=data),
        Dataset=lambda labels, accessor: SimpleNamespace(labels=labels, accessor=accessor),
        Subsampler=lambda *sizes: sizes,
    )  # fmt: skip
    monkeypatch.setattr(abx, "import_fastabx", lambda: library)
    monkeypatch.setattr(abx, "import_late", lambda name: SimpleNamespace(DataFrame=dict))
    return calls


def times(num_frames):
    return 0.05 + 0.1 * np.arange(num_frames)


def items(*phones, speaker="ann"):
    """Phones of one frame each, one after another in utterance 0."""
    return [SpokenPhone(0, p, speaker, k / 10, (k + 1) / 10) for k, p in enumerate(phones)]


def test_silence_and_noise_are_no_phones():
    alignment = [(0.0, 0.1, "SIL"), (0.1, 0.2, "s"), (0.2, 0.3, "spn"), (0.3, 0.4, "")]
    phones = spoken_phones([alignment, [(0.0, 0.5, "AH1")]], ["ann", "bob"])
    assert phones == [(0, "s", "ann", 0.1, 0.2), (1, "AH1", "bob", 0.0, 0.5)]


def test_a_phone_is_the_frames_inside_it_or_the_one_nearest_to_it(handed):
    frames = [np.arange(10.0)[:, None], 100 + np.arange(5.0)[:, None]]
    phones = [
        SpokenPhone(0, "a", "ann", 0.1, 0.35),  # the middles 0.15 and 0.25
        SpokenPhone(1, "b", "bob", 0.16, 0.19),  # no middle; 0.15 is nearest to 0.175
        SpokenPhone(0, "c", "ann", 0.98, 1.2),  # after the last frame
        SpokenPhone(0, "d", "ann", 0.05, 0.15),  # a middle at the end is in the next phone
    ]
    assert abx_errors(frames, phones, times, seed=7) == {"within": 0.25, "across": 0.25}
    (dataset, within), distance, (_, across), _ = handed
    cut = [dataset.accessor.data[first:last, 0].tolist() for first, last in
           dataset.accessor.bounds.values()]  # fmt: skip
    assert cut == [[1.0, 2.0], [101.0], [9.0], [0.0]]
    assert dataset.labels == {"phone": [*"abcd"], "speaker": ["ann", "bob", "ann", "ann"]}
    assert distance == "angular" and within == {"on": "phone", "by": ["speaker"],
                                                "subsampler": (10, 5, 7)}  # fmt: skip
    assert across == {"on": "phone", "across": ["speaker"], "subsampler": (10, 5, 7)}


def test_codes_are_compared_by_codebook(handed):
    codes = [np.array([[1, 2], [1, 3]], dtype=np.int32)]
    abx_errors(codes, items("a", "b"), times)
    assert handed[1] is abx.share_of_other_codes
    assert not handed[0][0].accessor.data.is_floating_point()


def test_one_speaker_is_not_compared_across(handed):
    assert abx_errors([np.eye(3)], items(*"aab"), times) == {"within": 0.25, "across": None}


@pytest.mark.parametrize("x", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(x, handed):
    with pytest.raises(ValueError, match="features are not finite"):
        abx_errors([np.array([[1.0], [x]])], items("a", "b"), times)


def test_an_old_python_and_a_missing_library_are_named(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 11, 7, "final", 0))
        with pytest.raises(
            ImportError, match="needs Python 3.12 or newer, and this is Python 3.11"
        ):
            import_fastabx()
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    monkeypatch.setitem(sys.modules, "fastabx", None)
    with pytest.raises(ImportError, match=r'pip install "brainquant\[abx\]"'):
        import_fastabx()


# ---- with fastabx --------------------------------------------------------------------------


def test_phones_that_are_too_few_are_named(fastabx):
    for phones, counted in (([], "0 phones of 0"), (items("a", "b"), "2 phones of 1")):
        with pytest.raises(ValueError, match=f"nothing can be compared, with {counted} speakers"):
            abx_errors([np.eye(3)], phones, times)


def test_the_error_of_codes_is_as_worked_out_by_hand(fastabx):
    # X = a with code 0 (two of four): of the other a, one is equal (right) and two are as far as b
    # (half an error each): 1/3. X = a with code 1, that of each b: the equal a ties, the two others
    # are farther than b: 5/6. X = b: the other b is equal, and so are half of the a: 1/4.
    codes = [np.array([0, 0, 1, 1, 1, 1])[:, None]]
    error = abx_errors(codes, items(*"aaaabb"), times)["within"]
    assert error == pytest.approx(((1 / 3 + 5 / 6) / 2 + 1 / 4) / 2)


def test_the_error_of_directions_is_as_worked_out_by_hand(fastabx):
    # Directions in degrees. a: 0, 10, 40; b: 30, 32. X = 0: 10 and 40 against 30, 32: 2 of 4 are
    # wrong. X = 10: 0 is nearer than b, 40 is not: 2 of 4. X = 40: 0 and 10 are not: 4 of 4. X = b:
    # the other b is 2 away, and each a is farther: none.
    angles = np.deg2rad([0, 10, 40, 30, 32])
    lengths = np.array([1, 5, 0.1, 2, 3])[:, None]  # do not matter
    frames = [lengths * np.stack([np.cos(angles), np.sin(angles)], 1)]
    error = abx_errors(frames, items(*"aaabb"), times)["within"]
    assert error == pytest.approx(((2 + 2 + 4) / 12 + 0) / 2)


def test_speech_at_another_speed_is_the_same_and_another_speaker_is_compared(fastabx):
    one = np.repeat(np.eye(4), 2, axis=0)  # a: the directions 0, 1; b: 2, 3, twice each
    other = np.eye(4)
    phones = [
        SpokenPhone(number, phone, speaker, step * half, step * (half + 2))
        for number, (speaker, step) in enumerate([("ann", 0.2), ("ann", 0.2), ("bob", 0.1)])
        for half, phone in ((0, "a"), (2, "b"))
    ]
    assert abx_errors([one, one, other], phones, times) == {"within": 0.0, "across": 0.0}
    swapped = abx_errors([one, one, other[[2, 3, 0, 1]]], phones, times)
    assert swapped == {"within": 0.0, "across": 1.0}


def test_noise_is_at_chance_and_the_seed_draws_what_is_compared(fastabx):
    rng = np.random.default_rng(0)
    phones = [p._replace(speaker=f"s{k // 3 % 3}") for k, p in enumerate(items(*("abc" * 70)))]
    frames = [rng.normal(size=(210, 8))]
    first, again, other = (abx_errors(frames, phones, times, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    for errors in (first, other):
        assert all(abs(error - 0.5) < 0.05 for error in errors.values())
