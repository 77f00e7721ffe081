"""Runs that were made before give their encoder, whatever has become of their folder."""

import copy
import io
import os
import pickle
import shutil

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.seed import seed_everything
from tiny_ctc import pretrain

from brainquant import load_pretrained
from brainquant.publishing.export import export
from brainquant.recipe import load_encoder, load_run, open_run

# What SpeechBrain's BEST-RQ recipe leaves in its folder, with a smaller model.
STOCK = """
seed: 1000
__set_seed: !apply:speechbrain.utils.seed_everything [1000]
output_folder: {folder}
sample_rate: 16000
pad_to_divisible_by: 4
CNN: &cnn !new:speechbrain.lobes.models.convolution.ConvolutionFrontEnd
    input_shape: (8, 10, 80)
    num_blocks: 2
    num_layers_per_block: 1
    out_channels: (8, 8)
    kernel_sizes: (3, 3)
    strides: (2, 2)
    residuals: (False, False)
wrapper: &wrapper !new:speechbrain.lobes.models.transformer.TransformerASR.EncoderWrapper
    transformer: !new:speechbrain.lobes.models.transformer.TransformerASR.TransformerASR
        input_size: 160
        tgt_vocab: 1
        d_model: 16
        nhead: 2
        num_encoder_layers: 2
        num_decoder_layers: 0
        d_ffn: 32
        encoder_module: conformer
        attention_type: RelPosMHAXL
        normalize_before: True
        causal: False
normalize: &normalize !new:speechbrain.processing.features.InputNormalization
    norm_type: {norm_type}
linear: &linear !new:speechbrain.nnet.linear.Linear
    input_size: 16
    n_neurons: 64
modules:
    CNN: *cnn
    wrapper: *wrapper
    normalize: *normalize
    linear: *linear
model: &model !new:torch.nn.ModuleList
    - [*cnn, *wrapper]
compute_features: !new:speechbrain.lobes.features.Fbank
    sample_rate: 16000
    n_fft: 400
    n_mels: 80
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: {folder}/save
    recoverables:
        model: *model
        normalize: *normalize
        linear: *linear
"""


@pytest.fixture(scope="module", params=["best_rq", "wav2vec2"])
def run(request, corpus, tmp_path_factory):
    """The folder of a run, moved to another place after the training."""
    folder = tmp_path_factory.mktemp("runs") / "then"
    pretrain(request.param, corpus, folder)
    return shutil.move(folder, folder.with_name("now"))


def test_an_opened_run_knows_the_codes_that_it_was_trained_on(run):
    """Its unigram is what a validation is compared with."""
    brain, _ = load_run(run)
    assert brain.tally.run.counts.any() and brain.optimizer_step == 1


def test_an_encoder_of_another_sample_rate_is_refused(run):
    with pytest.raises(ValueError, match="sample_rate is 8000, but the encoder is made for 16000"):
        open_run(run, overrides={"sample_rate": 8000})


def two_clips(*, seed=1):
    """Half a second and a second of noise, padded on the right, and their samples."""
    wavs_BL = torch.randn(2, 16000, generator=torch.manual_seed(seed))
    wavs_BL[0, 8000:] = 0.0
    return wavs_BL, torch.tensor([8000, 16000])


def test_a_trained_run_is_not_an_untrained_one(run):
    (trained, _), (untrained, _) = load_run(run), open_run(run)
    assert trained.optimizer_step == 1 and not trained.modules.training
    assert any(
        not torch.equal(new, old)
        for new, old in zip(trained.modules.parameters(), untrained.modules.parameters())
    )


def test_an_encoder_is_that_of_the_run(run):
    (brain, _), encoder = load_run(run), load_encoder(run)
    assert encoder.training and encoder.sample_rate == 16000
    for name, tensor in brain.raw("encoder").state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor), name
    wavs_BL, lengths_B = two_clips()
    expected, encoded = (e.eval()(wavs_BL, lengths_B) for e in (brain.raw("encoder"), encoder))
    assert torch.equal(encoded.hidden_BTD, expected.hidden_BTD)


def encodes_clips_as_if_alone(encoder):
    """Compares a clip with the same one beside a longer one."""
    wavs_BL, lengths_B = two_clips()
    hidden_BTD, frames_B, *_ = encoder(wavs_BL, lengths_B)
    for wav_L, length, frames, hidden_TD in zip(wavs_BL, lengths_B, frames_B, hidden_BTD):
        alone_1TD = encoder(wav_L[None, :length], length[None]).hidden_BTD
        torch.testing.assert_close(hidden_TD[:frames], alone_1TD[0], rtol=0, atol=1e-5)
    return True


@pytest.mark.parametrize("from_scratch", [False, True])
def test_an_encoder_gives_a_clip_the_same_beside_a_longer_one(run, from_scratch):
    assert encodes_clips_as_if_alone(load_encoder(run, from_scratch=from_scratch).train())


def test_the_shortest_audio_makes_a_frame(run):
    encoder = load_encoder(run).eval()
    shortest = encoder.min_samples
    hidden_BTD, frames_B, *_ = encoder(torch.randn(1, shortest), torch.tensor([shortest]))
    assert frames_B.tolist() == [1] and hidden_BTD.shape[1] >= 1


def test_an_encoder_trains_all_that_it_asks_gradients_for_and_nothing_else(run):
    encoder = load_encoder(run).train()
    encoder(*two_clips())[0].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    names = {name.split(".")[0] for name, _ in encoder.named_parameters()}
    assert names in ({"front_end", "transformer"}, {"extractor", "transformer"})
    groups = encoder.parameters_by_layer()
    trainable = {id(p) for p in encoder.parameters() if p.requires_grad}
    assert sorted(id(p) for group in groups for p in group) == sorted(trainable)
    assert len(groups) == len(encoder.layers) + 1
    for layer, group in zip(encoder.layers, groups[1:]):
        assert {id(p) for p in layer.parameters()} <= {id(p) for p in group}
    norms = [m.norm for m in encoder.modules() if hasattr(m, "layers") and hasattr(m, "norm")]
    assert norms and {id(p) for p in norms[0].parameters()} <= {id(p) for p in groups[-1]}
    first = getattr(encoder, "front_end" if "front_end" in names else "extractor")
    assert {id(p) for p in first.parameters()} <= {id(p) for p in groups[0]}


def by_torch(encoder):
    file = io.BytesIO()
    torch.save(encoder, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_state_dict(encoder, run):
    other = load_encoder(run, from_scratch=True).eval()
    other.load_state_dict(encoder.state_dict())
    return other


def averaged(encoder):
    return torch.optim.swa_utils.AveragedModel(encoder).module


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda encoder: pickle.loads(pickle.dumps(encoder)),
    "torch.save": by_torch,
    "AveragedModel": averaged,
}


@pytest.fixture
def encode_as_the_original():
    """Checks that a copy encodes as its original, and goes on without it."""

    def check(encoder, copied):
        wavs_BL, lengths_B = two_clips()
        expected_BTD, frames_B, *_ = encoder(wavs_BL, lengths_B)
        assert encoder.train() is encoder and not copied.training
        encoder.eval()
        hidden_BTD, same_B, *_ = copied(wavs_BL, lengths_B)
        assert torch.equal(hidden_BTD, expected_BTD) and torch.equal(same_B, frames_B)
        assert (copied.dim, copied.min_samples) == (encoder.dim, encoder.min_samples)
        hidden_BTD.square().sum().backward()
        with torch.no_grad():
            for parameter in copied.parameters():
                assert (parameter.grad is not None) == parameter.requires_grad
                parameter.add_(1.0)
        assert not torch.allclose(copied(wavs_BL, lengths_B)[0], expected_BTD)
        assert torch.equal(encoder(wavs_BL, lengths_B)[0], expected_BTD)

    return check


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_encodes_alike_and_has_its_own_weights(run, how, encode_as_the_original):
    encoder = load_encoder(run).eval()
    encode_as_the_original(encoder, COPIES[how](encoder).eval())


def test_a_state_dict_gives_the_same_encoder(run, encode_as_the_original):
    encoder = load_encoder(run).eval()
    encode_as_the_original(encoder, by_state_dict(encoder, run))


def test_a_part_that_is_replaced_is_the_one_that_encodes(run):
    encoder = copy.deepcopy(load_encoder(run).eval())
    name = "front_end" if hasattr(encoder, "front_end") else "extractor"
    called = []
    setattr(encoder, name, copy.deepcopy(getattr(encoder, name)))
    getattr(encoder, name).register_forward_hook(lambda *_: called.append(name))
    encoder(*two_clips())
    assert called == [name]


def test_an_encoder_in_distributed_training_can_be_copied(run, tmp_path, encode_as_the_original):
    encoder = load_encoder(run).eval()
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", store, rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(encoder)
        wrapped(*two_clips())[0].sum().backward()
        encode_as_the_original(encoder, copy.deepcopy(wrapped).module)
        encode_as_the_original(encoder, COPIES["torch.save"](wrapped.module))
    finally:
        torch.distributed.destroy_process_group()


def _save_outputs(rank, encoder, path):
    torch.save(encoder(*two_clips()).hidden_BTD, path)


@pytest.mark.slow  # test_a_copy_encodes_alike_and_has_its_own_weights pickles, too
def test_another_process_encodes_alike(run, tmp_path):
    encoder = load_encoder(run).eval().requires_grad_(False)
    torch.multiprocessing.spawn(_save_outputs, (encoder, tmp_path / "outputs.pt"))
    there = torch.load(tmp_path / "outputs.pt")
    torch.testing.assert_close(there, encoder(*two_clips()).hidden_BTD)


def test_from_scratch_is_the_same_encoder_of_the_seed_that_is_set_now(run):
    def weights(seed, **options):
        seed_everything(seed)
        encoder = load_encoder(run, **options)
        return torch.cat([p.detach().flatten() for p in encoder.parameters()])

    trained, scratch = weights(1), weights(1, from_scratch=True)
    assert trained.shape == scratch.shape and not torch.equal(trained, scratch)
    assert torch.equal(weights(2), trained)
    assert torch.equal(weights(1, from_scratch=True), scratch)
    assert not torch.equal(weights(2, from_scratch=True), scratch)


def test_the_statistics_of_a_normalisation_stay_and_go_into_checkpoints(corpus, tmp_path):
    pretrain("best_rq", corpus, tmp_path, normalize={"norm_type": "global"})
    mean = load_run(tmp_path)[0].modules["encoder"].normalize.glob_mean
    assert mean.abs().max() > 1
    for from_scratch in (False, True):
        encoder = load_encoder(tmp_path, from_scratch=from_scratch).train()
        encoder(*two_clips())
        assert torch.equal(encoder.state_dict()["normalize.glob_mean"], mean)


@pytest.mark.parametrize("broken", ["no run", "no checkpoint"])
def test_a_folder_without_what_is_needed_is_named(corpus, tmp_path, broken):
    if broken == "no checkpoint":
        pretrain("best_rq", corpus, tmp_path)
        shutil.rmtree(tmp_path / "save")
    with pytest.raises(ValueError, match=f"{tmp_path}.*(hyperparams.yaml|train it first)"):
        load_encoder(tmp_path)


@pytest.fixture(params=["sentence", "global"])
def stock(request, tmp_path):
    """Folder of a stock run, and what it was when it was saved."""
    text = STOCK.format(folder=tmp_path, norm_type=request.param)
    (tmp_path / "hyperparams.yaml").write_text(text, "utf-8")
    hparams = load_hyperpyyaml(text)
    hparams["normalize"](hparams["compute_features"](two_clips(seed=7)[0]))
    hparams["checkpointer"].save_checkpoint(name="good")
    return tmp_path, hparams


def weight(encoder):
    """One of the first weights of an encoder."""
    return next(encoder.front_end.parameters())


def test_a_stock_encoder_computes_what_speechbrain_does(stock):
    folder, hparams = stock
    for module in hparams["modules"].values():
        module.eval()
    encoder = load_encoder(folder).eval()
    clip_BL = torch.randn(1, 160 * 99, generator=torch.manual_seed(1))  # 100 frames, 25 stacks
    whole_B = torch.ones(1)
    feats_BTF = hparams["normalize"](hparams["compute_features"](clip_BL), whole_B, epoch=1)
    expected_BTD = hparams["wrapper"](hparams["CNN"](feats_BTF), whole_B)
    hidden_BTD, frames_B, *_ = encoder(clip_BL, torch.tensor([clip_BL.shape[1]]))
    torch.testing.assert_close(hidden_BTD, expected_BTD)
    assert frames_B.tolist() == [25] and len(encoder.layers) == 2
    assert not torch.equal(weight(load_encoder(folder, from_scratch=True)), weight(encoder))


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_stock_encoder_gives_a_clip_the_same_beside_a_longer_one(stock, from_scratch):
    assert encodes_clips_as_if_alone(load_encoder(stock[0], from_scratch=from_scratch).eval())


def test_a_stock_encoder_pads_on_the_right_and_on_no_other_side(stock):
    encoder = load_encoder(stock[0]).eval()
    clip_BL = torch.randn(1, 160 * 97, generator=torch.manual_seed(1))  # 98 frames, 24.5 stacks
    lengths_B = torch.tensor([clip_BL.shape[1]])
    feats_BTF, frames_B = encoder.features(clip_BL, lengths_B)
    assert frames_B.tolist() == [98] and feats_BTF.shape[1] == 100
    assert not feats_BTF[0, 98:].any() and feats_BTF[0, :98].any(dim=1).all()
    assert encoder(clip_BL, lengths_B)[1].tolist() == [25]


def test_a_stock_encoder_can_be_given_away(stock):
    folder, _ = stock
    exported = export(folder, folder / "exported")
    run = load_pretrained(folder)
    clips = two_clips()
    assert torch.equal(exported(*clips).hidden, run(*clips).hidden)
    assert exported.fingerprint() == run.fingerprint()


def test_a_stock_checkpoint_that_was_cut_short_is_passed_over(stock):
    folder, hparams = stock
    expected = weight(load_encoder(folder)).clone()
    with torch.no_grad():
        for parameter in hparams["model"].parameters():
            parameter.zero_()
    newest = hparams["checkpointer"].save_checkpoint(name="cut")
    path = newest.paramfiles["model"]
    os.truncate(path, path.stat().st_size // 2)
    assert torch.equal(weight(load_encoder(folder)), expected)
    shutil.rmtree(folder / "save" / "CKPT+good")
    with pytest.raises(ValueError, match="no whole checkpoint"):
        load_encoder(folder)


class Attack:
    """Ends the test where it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("it was run",)


@pytest.mark.parametrize("spoiled", ["model.ckpt", "normalize.ckpt", "CKPT.yaml"])
def test_a_stock_checkpoint_with_other_contents_is_passed_over(stock, spoiled, monkeypatch, caplog):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder, hparams = stock
    expected = weight(load_encoder(folder)).clone()
    with torch.no_grad():
        next(hparams["CNN"].parameters()).zero_()
    newest = hparams["checkpointer"].save_checkpoint(name="other").path
    (newest / spoiled).write_bytes(pickle.dumps(Attack(), protocol=0))
    assert torch.equal(weight(load_encoder(folder)), expected)
    assert f"{newest} is no whole checkpoint ({spoiled}" in caplog.text


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_stock_encoder_encodes_alike(stock, how, encode_as_the_original):
    encoder = load_encoder(stock[0]).eval()
    encode_as_the_original(encoder, COPIES[how](encoder).eval())
