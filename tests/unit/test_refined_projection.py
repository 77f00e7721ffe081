"""Refined codebooks, beside a slow reference; which frames count, and when the codes move."""

import copy

import pytest
import torch
import torch.nn.functional as F

from brainquant import RandomProjectionQuantizer, RefinedProjectionQuantizer
from brainquant.quantisers import Clips

SIZES = (12, 4, 20)
STEPS = [2, 3]


def make(**options):
    quantiser = RefinedProjectionQuantizer(
        *SIZES, **{"refine_steps": STEPS, "split_above": 2.0, "seed": 0, **options}
    )
    if quantiser.frames_to_fit:
        quantiser.fit(frames(99, batch=20).flatten(0, 1))
    return quantiser.train()


def frames(seed, batch=4, time=30):
    """Most lie in one direction, so that some codes take too many of them and some none."""
    x = torch.randn(batch, time, 12, generator=torch.Generator().manual_seed(seed))
    return x + 2.0 * (x[..., :1] > -0.8)


def clips(x, valid=None):
    B = len(x)
    return Clips([""] * B, torch.zeros(B, 1), torch.ones(B), x, valid)


def step(quantiser, number, *batches):
    """The optimiser step of a number, from 1; the codes of each batch."""
    quantiser.update_temp(number - 1)
    for batch in batches:
        quantiser.begin_step()
        yield quantiser.encode_clips(batch)
    quantiser.end_step()


def state(quantiser):
    return {name: value.clone() for name, value in quantiser.state_dict().items()}


def assert_same(quantiser, expected):
    for name, value in quantiser.state_dict().items():
        assert torch.equal(value, expected[name]), name


def units_of(quantiser, x, codebook):
    P = quantiser.P.view(-1, *quantiser.P.shape[-2:])[codebook]
    return F.normalize(x @ P + (0.0 if quantiser.shift is None else quantiser.shift), dim=-1)


@pytest.mark.parametrize("options", [{}, {"num_codebooks": 2}, {"whiten": True}])
def test_codes_move_to_their_frames_and_the_rarest_into_the_crowd(options):
    quantiser, plain = make(**options), RandomProjectionQuantizer(*SIZES, seed=0, **options)
    plain.load_state_dict(quantiser.state_dict(), strict=False)
    before, seen = quantiser.CB.clone().view(-1, 20, 4), []
    for number in (1, 2):
        x = frames(number)
        x[0, 3], valid = torch.nan, torch.ones(4, 30, dtype=torch.bool)
        valid[1, 20:] = False
        (codes,) = step(quantiser, number, clips(x, valid))
        assert torch.equal(codes, plain.encode(x))  # the codebooks move at the end only
        valid[0, 3] = False
        seen.append((x[valid], codes[valid]))
    assert quantiser.refined == 1 and not quantiser.counts.any() and not quantiser.sums.any()
    x, codes = (torch.cat(parts) for parts in zip(*seen))
    anew_of_all = 0
    for g, (old, new) in enumerate(zip(before, quantiser.CB.view(-1, 20, 4))):
        counts = torch.bincount(codes[:, g], minlength=20)
        crowded = counts > 2.0 * len(x) / 20
        number = max(int((counts == 0).sum()), int(crowded.sum()))
        rarest = sorted(range(20), key=lambda v: int(counts[v]))[:number]
        last = units_of(quantiser, seen[-1][0], g)[crowded[seen[-1][1][:, g]]]
        taken = set()
        for v in range(20):
            if v in rarest:
                distance, frame = torch.cdist(new[v : v + 1], last)[0].min(0)
                assert distance < 1e-3 and int(frame) not in taken
                taken.add(int(frame))
            else:
                mean = F.normalize(units_of(quantiser, x[codes[:, g] == v], g).sum(0), dim=0)
                torch.testing.assert_close(new[v], mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(new.norm(dim=-1), torch.ones(20))
        anew_of_all += number
        assert crowded.any() and not torch.equal(old, new)
    assert anew_of_all > len(before)


def test_refined_codes_are_used_more_evenly():
    quantiser, x = make(refine_steps=[1, 2, 3, 4]), frames(5, batch=40)

    def most(codes):
        return torch.bincount(codes.flatten(), minlength=20).max().item()

    before = most(quantiser.encode(x))
    for number in range(1, 5):
        list(step(quantiser, number, clips(x)))
    assert most(quantiser.encode(x)) < 0.6 * before


def test_accumulated_batches_are_one_batch_of_all_frames():
    whole, parts = make(whiten=True), make(whiten=True)
    for number in range(1, 5):
        x = frames(number)
        list(step(whole, number, clips(x)))
        list(step(parts, number, *map(clips, x.flip(0).split(1))))
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(parts.state_dict()[name], value, msg=name)
    assert whole.refined == 2 and torch.equal(whole.CB, parts.CB)


def test_only_the_targets_of_a_training_count_and_only_until_the_last_refinement():
    quantiser = make()
    before = state(quantiser)
    quantiser.begin_step()
    quantiser.encode(frames(1))
    quantiser(frames(1))
    quantiser.end_step()
    list(step(quantiser.eval(), 1, clips(frames(1))))
    assert_same(quantiser, before)
    quantiser.train()
    for number in range(1, 4):
        list(step(quantiser, number, clips(frames(number))))
    after = state(quantiser)
    assert after["refined"] == 2 and not torch.equal(after["CB"], before["CB"])
    list(step(quantiser, 4, clips(frames(4))))
    assert_same(quantiser, after)


def test_a_state_dict_goes_on_in_the_middle():
    whole, first, rest = make(), make(), make(seed=7)
    for number in range(1, 4):
        list(step(whole, number, clips(frames(number))))
    list(step(first, 1, clips(frames(1))))
    rest.load_state_dict(first.state_dict())
    for number in (2, 3):
        rest.seed = whole.seed
        list(step(rest, number, clips(frames(number))))
    assert_same(rest, state(whole))


def test_a_refinement_in_a_step_that_is_left_out_comes_in_the_next():
    quantiser = make(refine_steps=[2])
    list(step(quantiser, 1, clips(frames(1))))
    before, other = state(quantiser), copy.deepcopy(quantiser)
    list(step(quantiser, 2, clips(frames(2))))
    assert quantiser.refined == 1
    for name, buffer in quantiser.named_buffers():  # as a Brain does
        buffer.copy_(before[name])
    list(step(quantiser, 3, clips(frames(3))))
    list(step(other, 3, clips(frames(3))))
    assert quantiser.refined == 1
    assert_same(quantiser, state(other))


def test_a_step_of_no_frames_changes_no_code():
    quantiser = make(refine_steps=[1])
    before = quantiser.CB.clone()
    list(step(quantiser, 1, clips(frames(1), torch.zeros(4, 30, dtype=torch.bool))))
    assert quantiser.refined == 1 and torch.equal(quantiser.CB, before)


def test_torchscript_has_its_codes():
    quantiser = make()
    assert torch.equal(torch.jit.script(quantiser)(frames(3)), quantiser(frames(3)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"refine_steps": []}, r"refine_steps must be a list .*got \[\]; set refine_steps:"),
        ({"refine_steps": 100}, "refine_steps must be a list of steps.*got 100"),
        ({"refine_steps": [3, 3]}, r"each above the last, got \[3, 3\]"),
        ({"refine_steps": [3, 0.5]}, "refine_steps must be a positive integer, got 0.5"),
        ({"split_above": 1}, "split_above must be above 1, got 1; set split_above:"),
        ({"split_above": "many"}, "split_above must be above 1, got 'many'"),
        ({"cb_vocab": 0}, "cb_vocab must be a positive integer, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    sizes = {"input_dim": 12, "cb_dim": 4, "cb_vocab": 20, "refine_steps": [1], **arguments}
    with pytest.raises(ValueError, match=message):
        RefinedProjectionQuantizer(**sizes)
