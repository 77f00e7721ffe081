"""The way back: a continued model in a folder that transformers loads, and what is made of it."""

import json
import math
import os
import re
import shlex
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hub_server import TOKEN, Hub, Repository, use
from safetensors.torch import load_file, save_file
from tiny_continue import start
from tiny_ctc import FINETUNE, build_ctc, fit_ctc, manifests, options, write_hparams
from tiny_huggingface import make_model, save_model, vary

from brainquant import cli, load_pretrained
from brainquant.huggingface import load_encoder, load_wav2vec2
from brainquant.huggingface.folder import save_folder
from brainquant.huggingface.library import import_transformers
from brainquant.models.features import normalise_utterances
from brainquant.publishing.export import export
from brainquant.publishing.facts import Facts, base_model
from brainquant.publishing.onnx import export_onnx
from brainquant.publishing.push import push
from brainquant.publishing.to_transformers import export_to_transformers
from brainquant.recipe import load_encoder as load_encoder_of
from brainquant.recipe import load_run

ROOT = Path(__file__).resolve().parents[2]
USER, HOST, HOME = "xqzuser", "xqzhost", "xqzhome"
PARTS = ("encoder", "quantiser", "target_proj", "context_proj")
# do_normalize of the models: both kinds are public
NORMS = {"group": True, "layer": False}
SHORT = {
    "optimizer_step_limit": 2, "number_of_epochs": 1, "grad_accumulation_factor": 1,
    "batch_seconds": 8, "num_workers": 0,
}  # fmt: skip
KINDS = ("Wav2Vec2Model", "HubertModel", "WavLMModel", "Data2VecAudioModel", "Wav2Vec2BertModel")


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    """A model, the run of three steps that continues it, and the folder that is exported of it."""
    root = tmp_path_factory.mktemp("xqzroot")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            patch.setenv(variable, USER)
        patch.setenv("HOME", str(root / HOME))
        patch.setattr(socket, "gethostname", lambda: HOST)
        patch.chdir(root)
        for norm, do_normalize in NORMS.items():
            model, run = root / f"base_{norm}", root / f"run_{norm}"
            save_model(model, norm=norm, do_normalize=do_normalize)
            config = json.loads((model / "config.json").read_text("utf-8"))
            config["_name_or_path"] = config["trained_by"] = f"/home/{USER}"  # of strangers
            (model / "config.json").write_text(json.dumps(config), "utf-8")
            steps = {**SHORT, "optimizer_step_limit": 3}
            start("continue_wav2vec2", model, corpus, run, lr=0.01, **steps)
            export_to_transformers(run, norm, license="cc-by-4.0", language="en,no")
            made[norm] = model, run, root / norm
    return made


@pytest.fixture(params=NORMS)
def made(runs, request):
    return runs[request.param]


def loaded(class_name, folder):
    """A model of transformers, and what it found missing and unexpected."""
    model_class = getattr(import_transformers(), class_name)
    model, found = model_class.from_pretrained(folder, output_loading_info=True)
    return model.eval(), found["missing_keys"], found["unexpected_keys"]


def clip(encoder, num_samples=16000):
    """A clip, and what the model reads of it, as our encoder normalises it."""
    wav_BL = torch.randn(1, num_samples, generator=torch.Generator().manual_seed(0))
    if not encoder.do_normalize:
        return wav_BL, wav_BL
    return wav_BL, normalise_utterances(wav_BL, torch.tensor([num_samples]), math.sqrt(1e-7))


def state_of(brain):
    return {name: tensor for part in PARTS for name, tensor in named(part, brain.raw(part))}


def named(prefix, module):
    return [(f"{prefix}.{name}", tensor) for name, tensor in module.state_dict().items()]


def assert_equal_states(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_transformers_computes_what_the_run_computes(made):
    base, run, folder = made
    brain, _ = load_run(str(run))
    encoder, quantiser, target_proj, context_proj = (brain.raw(part).double() for part in PARTS)
    assert not torch.equal(
        encoder.model.feature_projection.projection.weight,
        loaded("Wav2Vec2Model", base)[0].feature_projection.projection.weight,
    )  # it was trained
    wav_BL, inputs_BL = (tensor.double() for tensor in clip(encoder))
    frames_B = torch.tensor([16000])
    model, missing, unexpected = loaded("Wav2Vec2ForPreTraining", folder)
    assert not missing and not unexpected
    model.double()  # to float32 the order of sums makes a difference of 1e-6 of the largest
    with torch.no_grad():
        ours = encoder.layer_outputs(wav_BL, frames_B)
        theirs = model(inputs_BL, output_hidden_states=True)
        encoded = encoder(wav_BL, frames_B)
        quantised = target_proj(quantiser(encoded.inputs_BTI)["x"])
        context = context_proj(encoded.hidden_BTD)
    # The last of them is that of the layer or, in older versions, after the norm that follows.
    for one, other in zip(ours[:-1], theirs.hidden_states[1:-1], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    torch.testing.assert_close(context, theirs.projected_states, rtol=0, atol=1e-6)
    torch.testing.assert_close(quantised, theirs.projected_quantized_states, rtol=0, atol=1e-6)


def test_a_model_for_ctc_lacks_nothing_but_its_head(made):
    model, missing, _ = loaded("Wav2Vec2ForCTC", made[2])
    assert missing == {"lm_head.weight", "lm_head.bias"}
    assert_equal_states(
        dict(model.wav2vec2.state_dict()), dict(loaded("AutoModel", made[2])[0].state_dict())
    )


def test_what_was_exported_is_continued_with_an_equal_state(made, corpus, tmp_path):
    _, run, folder = made
    brain, _ = load_run(str(run))
    parts = load_wav2vec2(str(folder), temp_tuple=[0.5, 0.5, 1.0])
    again = {name: t for part in PARTS for name, t in named(part, getattr(parts, part))}
    assert_equal_states(state_of(brain), again)
    assert parts.encoder.do_normalize == brain.raw("encoder").do_normalize
    # and a second round gives the same files
    (tmp_path / "second").mkdir()
    save_folder(str(tmp_path / "second"), *parts)
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert (tmp_path / "second" / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_transformers_comes_back_as_it_was(kind, tmp_path):
    norm = {} if "Bert" in kind else {"norm": "group"}
    before = vary(save_model(tmp_path / "before", kind, **norm))
    before.save_pretrained(tmp_path / "before")
    (tmp_path / "after").mkdir()
    assert save_folder(str(tmp_path / "after"), load_encoder(str(tmp_path / "before"))) == kind
    assert_equal_states(
        load_file(tmp_path / "before" / "model.safetensors"),
        load_file(tmp_path / "after" / "model.safetensors"),
    )
    known = type(before.config)().to_dict()  # the tiny models have keys of another class
    for name in ("config.json", "preprocessor_config.json"):
        one, other = (
            json.loads((tmp_path / place / name).read_text("utf-8"))
            for place in ("before", "after")
        )
        one = {k: v for k, v in one.items() if k in known or name != "config.json"}
        assert one == other
    model, missing, unexpected = loaded(kind, tmp_path / "after")
    assert not missing and not unexpected
    auto = loaded("AutoModel", tmp_path / "after")[0]
    assert type(auto) is type(model) and model.config.architectures == [kind]


def test_what_is_in_the_folder_and_that_it_names_nobody(runs, corpus):
    folders = {tempfile.gettempdir(), os.getcwd(), str(Path.home()), str(corpus)} - {"/"}
    private = {USER, HOST, HOME, "xqzroot", *folders}
    for _, _, folder in runs.values():
        names = "README.md config.json hyperparams.yaml model.safetensors preprocessor_config.json"
        assert sorted(os.listdir(folder)) == [*names.split(), "report.png"]
        assert (folder / "model.safetensors").stat().st_mode & 0o444 == 0o444
        for path in folder.iterdir():
            content = path.read_bytes()
            assert not [word for word in private if word.encode() in content], path
            assert path.suffix != ".png" or not re.search(b"zTXt|iTXt|eXIf", content)
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_the_card_says_what_the_model_is_and_its_code_runs(made):
    folder = made[2]
    _, front, text = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["library_name"] == "transformers" and front["license"] == "cc-by-4.0"
    assert "base_model" not in front  # a folder has no page on the Hub
    assert {"brainquant", "wav2vec-2-0"} <= {*front["tags"]}
    for part in (
        f"# base_{folder.name}, continued on ", "The licence of that model holds for",
        "Wav2Vec2ForPreTraining", "Wav2Vec2ForCTC.from_pretrained", "| Optimiser steps | 3 |",
        "2 codes, each out of 10", "](report.png)", "brainquant tokens",
    ):  # fmt: skip
        assert part in text, part
    assert ("read the padding" in text) == (folder.name == "group")
    names = {}
    of_transformers, ours = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for block in (of_transformers, ours):
        exec(block.replace("user/name", str(folder)), names)
    assert names["hidden"].shape == (1, 49, 16)


def test_a_base_model_is_named_as_the_hub_does(runs):
    from brainquant.publishing.card import model_card
    from brainquant.publishing.facts import about_model

    encoder = load_pretrained(runs["layer"][2])
    training = {"objective": "wav2vec 2.0", "base_model": "facebook/wav2vec2-base"}
    card = model_card(Facts(encoder), about_model(encoder, training), "", library="transformers")
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "facebook/wav2vec2-base"
    assert "](https://huggingface.co/facebook/wav2vec2-base). The licence of that model" in card


def test_the_base_of_a_fine_tuning_is_that_of_its_pretraining(tmp_path):
    pretraining = tmp_path / "needed/encoder.folder"
    kept = pretraining / "needed/parts.model"
    kept.mkdir(parents=True)
    (pretraining / "hyperparams.yaml").write_text("model: facebook/wav2vec2-base", "utf-8")
    keys = {"pretrained": "results/run", "output_folder": str(tmp_path)}
    assert base_model(keys) == "wav2vec2-base"  # of a folder, which has no page on the Hub
    (kept / "hub_id.txt").write_text("facebook/wav2vec2-base", "utf-8")
    assert base_model(keys) == "facebook/wav2vec2-base"
    assert base_model({**keys, "from_scratch": True}) is None
    assert base_model({"pretrained": "/data/my_hubert"}) == "my_hubert"


@pytest.mark.parametrize("kind", ["HubertModel", "Wav2Vec2BertModel"])
def test_a_run_of_masked_prediction_becomes_an_encoder(kind, corpus, tmp_path):
    save_model(tmp_path / "base", kind, **({} if "Bert" in kind else {"norm": "group"}))
    run, folder = tmp_path / "run", tmp_path / "folder"
    start("continue_masked", tmp_path / "base", corpus, run, cb_vocab=32, **SHORT)
    export_to_transformers(run, folder)
    model, missing, unexpected = loaded("AutoModel", folder)
    assert type(model).__name__ == kind == model.config.architectures[0]
    assert not missing and not unexpected
    of_run, of_folder = load_pretrained(run), load_pretrained(folder)
    wavs, lengths = torch.randn(2, 16000), torch.tensor([16000, 9001])
    assert torch.equal(of_run(wavs, lengths).hidden, of_folder(wavs, lengths).hidden)
    assert (of_run.codebook_size, of_folder.num_codebooks) == (32, 0)
    keywords = {"sampling_rate": 16000, "return_tensors": "pt"}
    inputs = import_transformers().AutoFeatureExtractor.from_pretrained(folder)(
        wavs[0].numpy(), **keywords
    )
    with torch.no_grad():
        theirs, ours = model(**inputs).last_hidden_state, of_folder(wavs[:1]).hidden
    assert float((theirs[:, : ours.shape[1]] - ours).norm()) < 1e-5 * float(ours.norm())
    text = (folder / "README.md").read_text("utf-8")
    assert "| Objective | masked prediction |" in text and f"`{kind[:-5]}ForCTC.from_" in text
    assert "The head and the quantiser of the continued training are not here" in text


# ---- what takes the folder -------------------------------------------------------------------


def test_speechbrains_wav2vec2_takes_the_folder(made, tmp_path):
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2

    theirs = Wav2Vec2(str(made[2]), save_path=str(tmp_path), freeze=True)
    ours = load_pretrained(made[2])
    wav_BL, inputs_BL = clip(ours.encoder)
    assert theirs.normalize_wav == ours.encoder.do_normalize
    theirs.normalize_wav = False  # it adds 1e-5 to variances where transformers adds 1e-7
    torch.testing.assert_close(theirs(inputs_BL), ours(wav_BL).hidden, rtol=0, atol=3e-5)


def test_s3prls_hf_wav2vec2_takes_the_folder(made):
    """The lines of ``s3prl.upstream.hf_wav2vec2.expert.UpstreamExpert`` of s3prl 0.4.18."""
    transformers = import_transformers()
    extracter = transformers.Wav2Vec2FeatureExtractor.from_pretrained(str(made[2]))
    model = transformers.Wav2Vec2Model.from_pretrained(str(made[2])).eval()
    ours = load_pretrained(made[2])
    wav_BL, _ = clip(ours.encoder)
    wavs = [wav.detach().cpu().numpy() for wav in wav_BL]
    input_values = extracter(
        wavs, return_tensors="pt", padding=True, return_attention_mask=True, sampling_rate=16000
    )
    with torch.no_grad():
        theirs = model(**input_values, output_hidden_states=True)
    states = theirs.hidden_states[1], theirs.last_hidden_state
    for one, other in zip((*ours(wav_BL, layers=[1]).hidden, ours(wav_BL).hidden), states):
        torch.testing.assert_close(one, other, rtol=0, atol=3e-5)  # normalised by numpy


def test_a_run_and_its_folder_are_one_model(made):
    _, run, folder = made
    of_run, of_folder = load_pretrained(run), load_pretrained(folder)
    assert of_run.fingerprint() == of_folder.fingerprint()
    assert (of_run.step, of_folder.num_codebooks, of_folder.codebook_size) == (3, 2, 10)
    wavs, lengths = torch.randn(2, 24000), torch.tensor([24000, 9000])
    assert torch.equal(of_run(wavs, lengths).hidden, of_folder(wavs, lengths).hidden)
    codes = of_folder.codes(wavs, lengths).codes_BTG
    assert torch.equal(of_run.codes(wavs, lengths).codes_BTG, codes) and codes.shape[2] == 2


def test_commands_take_a_folder_of_transformers(runs, corpus, tmp_path):
    folder, valid = str(runs["layer"][0]), f"{corpus}/valid.csv"
    common = "--batch_seconds 8 --num_processes 1 --num_workers 1".split()
    kmeans = str(tmp_path / "km.safetensors")
    cli.main(["kmeans", folder, valid, "--layer", "1", "--clusters", "4", "--frames", "400",
              "--output", kmeans])  # fmt: skip
    for name, command in {
        "hidden.npz": ["encode", folder, valid, "--layers", "2"],
        "codes.npz": ["tokens", folder, valid, "--format", "npz"],
        "units.npz": ["tokens", folder, valid, "--format", "npz", "--kmeans", kmeans],
    }.items():
        cli.main([*command, "--output", str(tmp_path / name), *common])
    splits = [word for split in ("train", "valid", "test") for word in (f"--{split}", valid)]
    cli.main(["probe", str(runs["layer"][2]), *splits, "--data_folder", str(corpus), "--label",
              "spk_id", "--seeds", "1", "--output", str(tmp_path / "probe")])  # fmt: skip
    ranks = json.loads((tmp_path / "probe.json").read_text("utf-8"))["effective_rank"]
    assert len(ranks["untrained encoder"]) == 2
    assert ranks["untrained encoder"] != ranks["pretrained encoder"]
    hidden, codes, units = (np.load(tmp_path / f"{n}.npz") for n in ("hidden", "codes", "units"))
    for name in hidden:
        assert len(hidden[name]) == len(codes[name]) == len(units[name])
        assert codes[name].shape[1] == 2 and units[name].max() < 4


def test_speechbrains_interface_takes_the_folder(made):
    from speechbrain.inference import WaveformEncoder

    from brainquant.inference.speechbrain import SSLEncoder

    wavs = torch.randn(1, 16000)
    expected = load_pretrained(made[2])(wavs).hidden
    encoder = WaveformEncoder.from_hparams(source=str(made[2]))
    assert torch.equal(encoder.encode_batch(wavs, torch.ones(1))["embeddings"], expected)
    assert torch.equal(SSLEncoder(str(made[2]), freeze=True)(wavs), expected)


def test_the_page_runs(runs, corpus, tmp_path, monkeypatch):
    """Every line of it, in a folder with a finished run."""
    text = (ROOT / "docs/how_to/export_to_transformers.md").read_text("utf-8")
    shutil.copytree(runs["layer"][1], tmp_path / "results/continue_wav2vec2/seed_1234")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/ToySpeech").symlink_to(corpus)
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```", text, re.DOTALL | re.M):
        if language == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            cli.main(shlex.split(line)[1:])
    assert names["model"].lm_head.out_features == 32 and names["encoder"].num_codebooks == 2


def test_fine_tuning_begins_with_the_folder_and_goes_on_without_it(runs, corpus, tmp_path):
    folder, run = shutil.copytree(runs["group"][2], tmp_path / "model"), tmp_path / "ctc"
    arguments = folder, corpus, manifests(corpus, tmp_path), run

    def finetune(steps):
        more = {"optimizer_step_limit": steps, "warmup_steps": 1, "number_of_epochs": steps}
        brain, hparams = build_ctc(*arguments, **more)
        write_hparams(FINETUNE, run, options(*arguments, **more))
        fit_ctc(brain, hparams)
        return brain

    encoder, expected = load_encoder_of(str(folder)), load_pretrained(folder).encoder
    assert encoder.training and not encoder.model.masked_spec_embed.requires_grad
    assert_equal_states(dict(encoder.state_dict()), dict(expected.state_dict()))
    finetune(1)
    shutil.rmtree(folder)
    assert finetune(2).optimizer_step == 2
    export_to_transformers(run, tmp_path / "finetuned")
    model, missing, unexpected = loaded("AutoModel", tmp_path / "finetuned")
    assert model.config.architectures == ["Wav2Vec2Model"] and not missing and not unexpected


def test_the_hub_has_the_folder_and_models_of_others(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = shutil.copytree(runs["layer"][2], tmp_path / "model")
    (folder / "notes.txt").write_text("nobody else's business", "utf-8")
    with Hub() as hub:
        use(hub, tmp_path, monkeypatch, HF_HUB_OFFLINE=False)
        push(folder, "somebody/speech")
        uploaded = hub.repositories["somebody/speech"]
        names = uploaded.commits[uploaded.branches["main"]]
        assert sorted(names) == sorted({*os.listdir(folder)} - {"notes.txt"})
        expected = load_pretrained(folder).fingerprint()
        assert load_pretrained("somebody/speech").fingerprint() == expected
        pickled = shutil.copytree(runs["layer"][2], tmp_path / "pickled")
        torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
        (pickled / "model.safetensors").unlink()
        with pytest.raises(ValueError, match="weights in other files than model.safetensors"):
            push(pickled, "somebody/pickled")
        assert "somebody/pickled" not in hub.repositories
        # An old model has a pickle only, and a folder may have adapters that nobody asks for.
        files = {n: (runs["layer"][2] / n).read_bytes() for n in ("config.json",)}
        state = load_file(folder / "model.safetensors")
        torch.save(state, tmp_path / "pytorch_model.bin")
        files["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
        files["adapter.eng.safetensors"] = b"large"
        hub.repositories["facebook/old"] = Repository()
        hub.repositories["facebook/old"].commit("main", files)
        old = load_pretrained("facebook/old")
        assert old.encoder.do_normalize  # transformers' default, without a file that says it
        assert_equal_states(
            dict(old.encoder.model.state_dict()),
            dict(load_pretrained(folder).encoder.model.state_dict()),
        )
        assert not [path for _, path in hub.requests if "adapter" in path]


# ---- what is refused -------------------------------------------------------------------------


def test_each_kind_of_run_has_its_format(runs, pretrained_run, tmp_path):
    run, output = runs["layer"][1], tmp_path / "output"
    with pytest.raises(ValueError, match="has a model of transformers.*add --format transformers"):
        export(run, output)
    with pytest.raises(ValueError, match="no run that continues .*leave out --format"):
        export_to_transformers(pretrained_run("wav2vec2"), output)
    with pytest.raises(ValueError, match="cannot be exported to ONNX: it is a model of transform"):
        export_onnx(load_pretrained(run), output / "model.onnx")
    with pytest.raises(ValueError, match="exported already; give the output_folder of a run"):
        export_to_transformers(runs["layer"][2], output)
    assert not os.listdir(tmp_path)


def test_the_command_names_what_it_has_written(runs, tmp_path, capsys):
    output = str(tmp_path / "model")
    line = ["export", str(runs["group"][1]), "--format", "transformers", "--output", output]
    cli.main(line)
    assert f"the encoder of step 3 is in {output}" in capsys.readouterr().out
    cli.main(line)  # the same once more
    with pytest.raises(SystemExit, match="exists and has other content"):
        cli.main([*line, "--title", "Another"])


def test_a_module_that_transformers_does_not_have_is_named(tmp_path):
    save_model(tmp_path / "model")
    parts = load_wav2vec2(str(tmp_path / "model"), temp_tuple=[0.5, 0.5, 1.0])
    wider = parts._replace(context_proj=torch.nn.Linear(16, 9))
    with pytest.raises(ValueError, match=r"project_hid.bias \(\(9,\)\) is not what a Wav2Vec2ForP"):
        save_folder(str(tmp_path), *wider)


def test_a_folder_of_our_own_format_is_checked_as_before(exported, tmp_path):
    folder = shutil.copytree(exported("best_rq"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "hubert"}), "utf-8")
    with pytest.raises(ValueError, match="has the unknown key 'model_type'"):
        load_pretrained(folder)


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    save_model(tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["project_q.bias"][0] = math.nan
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match="project_q.bias in .* has NaN") as error:
        load_pretrained(tmp_path / "model")
    assert "\n" not in str(error.value)
    for changes, said in (
        ({"num_hidden_layers": 10**9}, "num_hidden_layers in .* must be from 0 to 1000"),
        ({"quantization_config": {"quant_method": "gptq"}}, "has quantised weights"),
        ({"model_type": "bert"}, "of the type bert, which cannot be"),
    ):
        make_model().config.save_pretrained(tmp_path / "model")
        config = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
        text = json.dumps({**config, **changes})
        (tmp_path / "model" / "config.json").write_text(text, "utf-8")
        with pytest.raises(ValueError, match=said):
            load_pretrained(tmp_path / "model")
