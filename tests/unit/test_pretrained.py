"""A trained encoder outside of training: the same from any batch, and nothing from the padding."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from tiny_ctc import pretrain

import brainquant
from brainquant.inference import PretrainedEncoder
from brainquant.recipe import load_run

RECIPES = ["best_rq", "wav2vec2"]


@pytest.fixture(scope="module")
def opened(pretrained_run):
    return {name: brainquant.load_pretrained(pretrained_run(name)) for name in RECIPES}


@pytest.fixture
def encoder(opened, request):
    """A copy, which a test may change."""
    return copy.deepcopy(opened[getattr(request, "param", "best_rq")])


@pytest.fixture
def kmeans(tmp_path):
    """Writes random centroids for a layer, as ``brainquant kmeans`` does."""

    def write(dim, **metadata):
        centroids = torch.randn(7, dim, generator=torch.manual_seed(0))
        save_file({"centroids": centroids}, tmp_path / "k.safetensors", metadata)
        return tmp_path / "k.safetensors"

    return write


def clips():
    """Waveforms of odd lengths, with noise where their padding is."""
    lengths = torch.tensor([16000, 7001, 12345, 401])
    return torch.randn(4, 16000, generator=torch.manual_seed(1)), lengths


@pytest.mark.parametrize("encoder", RECIPES, indirect=True)
def test_a_clip_gets_what_it_gets_alone(encoder, kmeans):
    wavs, lengths = clips()
    assert encoder.add_kmeans(kmeans(encoder.dim, layer="2")) == 2
    layers = [2, 0, 1]
    hidden, frames = encoder(wavs, lengths)
    by_layer, _ = encoder(wavs, lengths, layers=layers)
    codes, code_frames = encoder.codes(wavs, lengths)
    units, _ = encoder.units(wavs, lengths, layer=2)
    for row, length in enumerate(lengths):
        wav = wavs[row : row + 1, :length]
        alone, whole = encoder(wav), int(frames[row])
        assert alone.frames_B == whole == encoder.count_frames(int(length))
        torch.testing.assert_close(hidden[row, :whole], alone.hidden[0, :whole], rtol=0, atol=1e-5)
        assert not hidden[row, whole:].any()
        for together, expected in zip(by_layer, encoder(wav, layers=layers).hidden):
            torch.testing.assert_close(
                together[row, :whole], expected[0, :whole], rtol=0, atol=1e-5
            )
        valid = int(code_frames[row])
        assert torch.equal(codes[row, :valid], encoder.codes(wav).codes_BTG[0, :valid])
        assert (codes[row, valid:] == -1).all() and (codes[row, :valid] >= 0).all()
        assert torch.equal(units[row, :whole], encoder.units(wav, layer=2).units_BT[0, :whole])
        assert (units[row, whole:] == -1).all() and (units[row, :whole] >= 0).all()


@pytest.mark.parametrize("encoder", RECIPES, indirect=True)
def test_it_gives_what_the_run_gives(encoder, pretrained_run, request):
    brain, _ = load_run(pretrained_run(request.node.callspec.params["encoder"]))
    trained, (wavs, lengths) = brain.raw("encoder"), clips()
    expected, of_layers = trained(wavs, lengths), trained.layer_outputs(wavs, lengths)
    hidden, frames = encoder(wavs, lengths)
    assert torch.equal(frames, expected.frames_B)
    assert torch.equal(hidden[0], expected.hidden_BTD[0])
    second, inputs, first = encoder(wavs, lengths, layers=[2, 0, 1]).hidden
    for ours, theirs in zip((inputs, first, second), (expected.inputs_BTI, *of_layers)):
        assert torch.equal(ours[0], theirs[0])
    codes, valid = encoder.codes(wavs, lengths)
    inputs, _ = trained.quantiser_inputs(wavs, lengths)
    assert torch.equal(codes[0, : valid[0]], brain.raw("quantiser").encode(inputs)[0, : valid[0]])
    quantiser = brain.raw("quantiser")
    sizes = encoder.num_codebooks, encoder.codebook_size, encoder.dim, encoder.num_layers
    assert sizes == (quantiser.num_codebooks, quantiser.codebook_size, trained.dim, 2)
    assert encoder.step == brain.optimizer_step and not encoder.training
    times = encoder.frame_times(3)
    assert times[2] - times[1] == pytest.approx(1 / encoder.frame_rate)


def test_layers_above_the_highest_are_not_computed(encoder):
    computed = []
    for number, layer in enumerate(encoder.encoder.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: computed.append(number))
    encoder(*clips(), layers=[1])
    assert computed == [1]
    encoder(*clips(), layers=[0])
    assert computed == [1]


@pytest.mark.parametrize("encoder", RECIPES, indirect=True)
def test_a_clip_too_short_for_a_frame_has_none(encoder):
    lengths = torch.tensor([0, encoder.min_samples - 1])
    hidden, frames = encoder(torch.randn(2, encoder.min_samples - 1), lengths)
    expected = [encoder.count_frames(length) for length in lengths.tolist()]
    assert frames.tolist() == expected and hidden.isfinite().all()


def test_the_layers_read_no_padding_even_if_the_run_kept_the_original_ones(corpus, tmp_path):
    folder = pretrain("best_rq", corpus, tmp_path / "run", quick_layers=False)
    encoder, (wavs, lengths) = brainquant.load_pretrained(folder), clips()
    hidden, frames = encoder(wavs, lengths)
    alone, _ = encoder(wavs[1:2, : lengths[1]])
    torch.testing.assert_close(hidden[1, : frames[1]], alone[0], rtol=0, atol=1e-5)


def test_the_fingerprint_changes_with_any_tensor_and_with_the_description(encoder):
    before = encoder.fingerprint()
    assert PretrainedEncoder(
        copy.deepcopy(encoder.encoder), encoder.quantiser, description=encoder.description
    ).fingerprint() == before  # fmt: skip
    with torch.no_grad():
        encoder.quantiser.state_dict()["P"][0, 0] += 1
    changed = encoder.fingerprint()
    encoder.description["sample_rate"] = 8000
    assert len({before, changed, encoder.fingerprint()}) == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_waveforms_of_another_type_are_float32_before_the_features(encoder, dtype):
    wavs = clips()[0].to(dtype)
    assert torch.equal(encoder(wavs).hidden, encoder(wavs.float()).hidden)
    assert torch.equal(encoder.codes(wavs)[0], encoder.codes(wavs.float())[0])


def test_wrong_input_is_one_clear_error(encoder, kmeans, tmp_path):
    wavs, lengths = clips()
    for arguments, text in [
        ((wavs[0],), "for one clip, use wav"),
        (((32768 * wavs).short(),), "got torch.int16 of shape"),
        ((wavs, lengths / 16000), "a LongTensor, got torch.float32"),
        ((wavs, lengths[:2]), "samples of each of 4 clips"),
        ((wavs, lengths + 1), "from 0 to the 16000 samples"),
    ]:
        with pytest.raises(ValueError, match=text):
            encoder(*arguments)
    with pytest.raises(ValueError, match="there is no layer 3; the encoder has the layers 1 to 2"):
        encoder(wavs, lengths, layers=[3])
    with pytest.raises(ValueError, match="there is no k-means for layer 2; add one"):
        encoder.units(wavs, lengths, layer=2)
    encoder.quantiser = None
    assert encoder.num_codebooks == encoder.codebook_size == 0
    with pytest.raises(ValueError, match="this model has no quantiser"):
        encoder.codes(wavs, lengths)
    with pytest.raises(ValueError, match="none.safetensors does not exist"):
        encoder.add_kmeans(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="was fitted to layer 2, not to layer 1"):
        encoder.add_kmeans(kmeans(encoder.dim, layer="2"), layer=1)
    with pytest.raises(ValueError, match="does not say to which layer"):
        encoder.add_kmeans(kmeans(encoder.dim))
    with pytest.raises(ValueError, match="was fitted to layer 5, but this model has 2 layers"):
        encoder.add_kmeans(kmeans(encoder.dim, layer="5"))
    with pytest.raises(ValueError, match="was fitted to another model"):
        encoder.add_kmeans(kmeans(encoder.dim, layer="1", fingerprint="0" * 64))
    with pytest.raises(ValueError, match=r"revision is for models of the Hub, got revision='v1'"):
        brainquant.load_pretrained(tmp_path, revision="v1")
