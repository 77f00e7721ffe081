"""Checkpoints of fairseq become models of transformers; nothing in them is executed."""

import collections
import contextlib
import os
import sys
import types

import numpy as np
import pytest
import tiny_fairseq
import torch
from torchaudio.models import wav2vec2_model
from torchaudio.models.wav2vec2.utils import import_fairseq

from brainquant.huggingface.fairseq import parse_convolutions, read_fairseq
from brainquant.huggingface.library import import_transformers

WAVS = torch.randn(2, 4000, generator=torch.Generator().manual_seed(3))


def save(tmp_path, content, **options):
    torch.save(content, path := str(tmp_path / "checkpoint.pt"), **options)
    return path


def transformers_model(fairseq):
    """As transformers loads it; nothing may be drawn anew or left over."""
    transformers = import_transformers()
    (name,) = fairseq.config["architectures"]
    model_class = getattr(transformers, name)
    model, found = model_class.from_pretrained(
        None,
        config=model_class.config_class.from_dict(fairseq.config),
        state_dict=dict(fairseq.state),
        output_loading_info=True,
    )
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def torchaudio_hidden(state, norm):
    """Hidden states of torchaudio's model, with torchaudio's own map of fairseq's names."""
    stable = norm == "layer"
    model = wav2vec2_model(
        extractor_mode="layer_norm" if stable else "group_norm",
        extractor_conv_layer_config=[(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2],
        extractor_conv_bias=stable,
        encoder_embed_dim=16,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=16,
        encoder_pos_conv_groups=2,
        encoder_num_layers=2,
        encoder_num_heads=2,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=32,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=stable,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )
    converted = import_fairseq._convert_state_dict(state)
    converted.pop("label_embs_concat", None)
    model.load_state_dict(converted)
    with torch.no_grad():
        return model.eval()(WAVS)[0]


@pytest.mark.parametrize("form", ["cfg", "args"])
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_hidden_states_are_those_of_torchaudio(tmp_path, kind, norm, form):
    content = tiny_fairseq.make_checkpoint(kind, norm, form=form, normalize=norm == "layer")
    fairseq = read_fairseq(save(tmp_path, content))
    assert (fairseq.kind, fairseq.do_normalize) == (kind, norm == "layer")
    model = transformers_model(fairseq)
    encoder = model.wav2vec2 if kind == "wav2vec2" else model
    with torch.no_grad():
        hidden = encoder(WAVS).last_hidden_state
    torch.testing.assert_close(
        hidden, torchaudio_hidden(content["model"], norm), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("form", ["cfg", "args"])
@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_the_encoder_of_a_finetuned_model_is_that_of_the_pretrained_one(tmp_path, kind, form):
    state = read_fairseq(save(tmp_path, tiny_fairseq.make_checkpoint(kind, form=form))).state
    finetuned = read_fairseq(save(tmp_path, tiny_fairseq.make_finetuned(kind, form=form)))
    assert finetuned.kind == kind
    transformers_model(finetuned)
    for name, tensor in finetuned.state.items():
        assert torch.equal(tensor, state[f"wav2vec2.{name}" if kind == "wav2vec2" else name])


def test_heads_and_sizes_of_wav2vec2_are_kept(tmp_path):
    content = tiny_fairseq.make_checkpoint()
    fairseq = read_fairseq(save(tmp_path, content))
    model, state = transformers_model(fairseq), content["model"]
    assert torch.equal(model.quantizer.codevectors, state["quantizer.vars"])
    assert torch.equal(model.quantizer.weight_proj.weight, state["quantizer.weight_proj.weight"])
    assert torch.equal(model.project_q.weight, state["project_q.weight"])
    assert torch.equal(model.project_hid.weight, state["final_proj.weight"])
    assert torch.equal(model.wav2vec2.masked_spec_embed, state["mask_emb"])
    assert (fairseq.sample_rate, fairseq.config["layerdrop"]) == (16000, 0.05)


@pytest.mark.parametrize("dims", [{}, {"latent_dim": 0}, {"latent_dim": 0, "final_dim": 0}])
def test_sizes_of_the_heads_that_are_not_written_are_fairseqs(tmp_path, dims):
    content = tiny_fairseq.make_checkpoint(**dims)
    final = 16 if "final_dim" in dims else 6
    codes = final if dims else 4
    content["model"]["quantizer.vars"] = torch.rand(1, 10, codes // 2)
    content["model"]["project_q.weight"] = torch.rand(final, codes)
    content["model"]["project_q.bias"] = torch.rand(final)
    content["model"]["final_proj.weight"] = torch.rand(final, 16)
    content["model"]["final_proj.bias"] = torch.rand(final)
    transformers_model(read_fairseq(save(tmp_path, content)))


def test_a_checkpoint_in_half_precision_becomes_float32(tmp_path):
    content = tiny_fairseq.make_checkpoint()
    content["model"] = {name: tensor.half() for name, tensor in content["model"].items()}
    state = read_fairseq(save(tmp_path, content)).state
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_equal_sizes_have_no_projection_in_fairseq(tmp_path):
    convolutions = tiny_fairseq.CONVOLUTIONS[:-1].replace(
        "[(8, 2, 2)] *", "[(8, 2, 2), (16, 2, 2)] *"
    )
    content = tiny_fairseq.make_checkpoint("hubert", conv_feature_layers=f"{convolutions}1")
    state = content["model"]
    state["feature_extractor.conv_layers.6.0.weight"] = torch.randn(16, 8, 2)
    state["layer_norm.weight"], state["layer_norm.bias"] = torch.rand(16), torch.rand(16)
    del state["post_extract_proj.weight"], state["post_extract_proj.bias"]
    model = transformers_model(read_fairseq(save(tmp_path, content)))
    with torch.no_grad():
        latents_BTC = model.feature_extractor(WAVS).mT
        normed_BTC = model.feature_projection.layer_norm(latents_BTC)
        assert torch.equal(model.feature_projection(latents_BTC), normed_BTC)


# ---- what else a file has ------------------------------------------------------------------


def lend(monkeypatch, module, **classes):
    """Makes classes importable from a module that is not installed."""
    made = types.ModuleType(module)
    for name, lent in classes.items():
        lent.__module__, lent.__qualname__, lent.__name__ = module, name, name
        setattr(made, name, lent)
    parents = module.split(".")[:-1]
    for i in range(len(parents)):
        monkeypatch.setitem(sys.modules, ".".join(parents[: i + 1]), types.ModuleType("parent"))
    monkeypatch.setitem(sys.modules, module, made)
    return made


class Attributes:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


@pytest.fixture
def omegaconf(monkeypatch):
    """Pickles as those of omegaconf 2.0 to 2.3, which stores the class and the parent of all."""
    subclass = lambda: type("Lent", (Attributes,), {})  # noqa: E731
    base = lend(monkeypatch, "omegaconf.base", ContainerMetadata=subclass(), Metadata=subclass())
    dicts = lend(monkeypatch, "omegaconf.dictconfig", DictConfig=subclass())
    lists = lend(monkeypatch, "omegaconf.listconfig", ListConfig=subclass())
    nodes = lend(monkeypatch, "omegaconf.nodes", AnyNode=subclass())
    from typing import Any

    def wrap(value, parent=None):
        meta = {"ref_type": Any, "flags": {}, "resolver_cache": collections.defaultdict(dict)}
        if isinstance(value, dict):
            meta |= {"object_type": dict, "key_type": int, "element_type": Any}
            node = dicts.DictConfig(_metadata=base.ContainerMetadata(**meta), _parent=parent)
            node._content = {key: wrap(child, node) for key, child in value.items()}
        elif isinstance(value, (list, tuple)):
            meta |= {"object_type": list}
            node = lists.ListConfig(_metadata=base.ContainerMetadata(**meta), _parent=parent)
            node._content = [wrap(child, node) for child in value]
        else:
            node = nodes.AnyNode(_metadata=base.Metadata(**meta), _parent=parent, _val=value)
        return node

    return wrap


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_all_that_fairseq_pickles_is_read(tmp_path, monkeypatch, omegaconf, zipped):
    dictionary = lend(
        monkeypatch, "fairseq.data.dictionary", Dictionary=type("D", (Attributes,), {})
    ).Dictionary(symbols=["<s>", "a"], count=[1, 1], indices={"<s>": 0, "a": 1})
    content = tiny_fairseq.make_checkpoint(latent_temp=[2.0, 0.5, 0.9])
    content["cfg"] = omegaconf(content["cfg"])
    content["task_state"] = {"dictionaries": [dictionary]}
    content["extra_state"] = {
        "val_loss": np.float64(1.5),
        "best": np.array([1.0, 2.0]),
        "metrics": collections.defaultdict(dict, {"train": {"loss": 1.5}}),
    }
    content["last_optimizer_state"] = {"state": {0: {"exp_avg": torch.zeros(2), "step": 3}}}
    path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
    monkeypatch.undo()
    assert "omegaconf" not in sys.modules and "fairseq" not in sys.modules
    fairseq = read_fairseq(path)
    assert "omegaconf" not in sys.modules and "fairseq" not in sys.modules
    torch.testing.assert_close(
        fairseq.state["project_q.weight"], content["model"]["project_q.weight"]
    )
    assert fairseq.config["num_hidden_layers"] == 2 and fairseq.do_normalize


class Reduces:
    """Pickles as a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


ATTACKS = {
    "os.system": lambda canary: Reduces(os.system, (f"touch {canary}",)),
    "builtins.eval": lambda canary: Reduces(eval, (f"open({str(canary)!r}, 'w')",)),
    "builtins.getattr": lambda canary: Reduces(getattr, ("a", "upper")),
    "pathlib": lambda canary: Reduces(type(canary).touch, (canary,)),
    # The state of a stand-in and the arguments of its call are data, too.
    "state": lambda canary: Reduces(
        tiny_fairseq.argparse.Namespace, (), {"__setstate__": ATTACKS["os.system"](canary)}
    ),
    "argument": lambda canary: Reduces(
        collections.defaultdict, (Reduces(os.system, (f"touch {canary}",)),)
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("forced", [True, False])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch, attack, zipped, forced):
    canary = tmp_path / "canary"
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    content = {**tiny_fairseq.make_checkpoint(), "extra": ATTACKS[attack](canary)}
    path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="nothing of it was run") as refused:
        read_fairseq(path)
    assert not canary.exists() and "\n" not in str(refused.value)
    if attack.startswith("os."):
        assert "posix.system" in str(refused.value)
    with contextlib.suppress(TypeError):  # a number is no default_factory
        torch.load(path, weights_only=False)  # the canary is alive
    assert canary.exists() or attack == "builtins.getattr"


def test_a_stand_in_calls_nothing(tmp_path):
    """Reduced with a callable, built with a state, used as a key: it stays what it is."""
    call = Reduces(tiny_fairseq.argparse.Namespace, (torch.device,), {"__class__": torch.device})
    content = {**tiny_fairseq.make_checkpoint(), "extra": call}
    assert read_fairseq(save(tmp_path, content)).kind == "wav2vec2"


# ---- what is refused -----------------------------------------------------------------------

REFUSED = {
    "quantize_input": True, "target_glu": True, "layer_type": "conformer", "pos_conv_depth": 5,
    "quantizer_depth": 2, "crop_seq_to_multiple": 2, "conv_pos_batch_norm": True,
    "activation_fn": "gelu_accurate", "extractor_mode": "batch_norm",
    "encoder_layers": "2", "encoder_embed_dim": -1, "conv_bias": 1,
    "conv_feature_layers": "__import__('os').system('true')",
}  # fmt: skip


@pytest.mark.parametrize("key", REFUSED)
def test_what_transformers_has_no_place_for_is_named(tmp_path, key):
    content = tiny_fairseq.make_checkpoint(**{key: REFUSED[key]})
    with pytest.raises(ValueError, match=f"^model: .*checkpoint.pt: its {key}"):
        read_fairseq(save(tmp_path, content))


def change(content, **changes):
    return {**content, **changes}


FAULTS = {
    "such as encoder.layers.1.fc1.weight": lambda c: c["model"].pop("encoder.layers.1.fc1.weight"),
    "such as encoder.layers.2.fc1.weight": lambda c: c["model"].update(
        {"encoder.layers.2.fc1.weight": torch.zeros(2)}
    ),
    "a model data2vec_audio": lambda c: c["cfg"]["model"].update(_name="data2vec_audio"),
    "neither cfg nor args": lambda c: c.update(cfg=None),
    "no model: with the weights": lambda c: c.update(model=None),
    "no w2v_args": lambda c: c["cfg"]["model"].update(_name="wav2vec_ctc"),
    "nested too deeply": lambda c: c["cfg"]["model"].update(own=c["cfg"]),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_checkpoint_that_is_not_whole_or_of_another_model_is_one_line(tmp_path, message):
    content = tiny_fairseq.make_checkpoint()
    FAULTS[message](content)
    with pytest.raises(ValueError, match=message) as refused:
        read_fairseq(save(tmp_path, content))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04broken"])
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^model: {path} ") as refused:
        read_fairseq(str(path))
    assert "\n" not in str(refused.value)


def test_what_is_left_out_is_named(tmp_path, caplog):
    with caplog.at_level("INFO"):
        read_fairseq(save(tmp_path, tiny_fairseq.make_checkpoint("hubert")))
    assert "final_proj.weight, final_proj.bias, label_embs_concat" in caplog.text


@pytest.mark.parametrize("text", [
    "", "[]", "[(8, 2)]", "[(8, 2, 0)]", "[(8, 2, True)]", "[(8, 2, 1)] * 10 ** 9",
    "[(8, 2, 1)] * 1001", "[(8, 2, -1)]", "(" * 1000, "1 + 1", "[x]", "[(8, 2, 1)] - [(8, 2, 1)]",
])  # fmt: skip
def test_only_sums_and_products_of_lists_are_convolutions(text):
    with pytest.raises(ValueError, match="^its conv_feature_layers are"):
        parse_convolutions(text)


def test_fairseqs_own_expressions_of_convolutions_are_read():
    for text in (
        "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]",
        "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
        " [(512, 10, 5), (512, 3, 2), (512, 3, 2), (512, 3, 2), (512, 3, 2)] + [(512, 2, 2)] * 2 ",
    ):
        assert parse_convolutions(text) == eval(text.strip())
