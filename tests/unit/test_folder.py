"""Exported folders of strangers: what does not fit is refused in one line, and nothing is run."""

import copy
import functools
import json
import logging
import os
import pickle
import shutil
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from brainquant import load_pretrained
from brainquant.inference.allowed import ALLOWED
from brainquant.inference.folder import open_folder
from brainquant.inference.pretrained import PretrainedEncoder
from brainquant.publishing.export import write_model
from brainquant.recipe import load_encoder

CANARY = "canary"


@pytest.fixture(scope="module")
def exported(pretrained_run, tmp_path_factory):
    """A folder with the smallest encoder, and that encoder."""
    folder = tmp_path_factory.mktemp("exported")
    encoder = load_pretrained(pretrained_run("best_rq"))
    write_model(str(folder), encoder, {})
    return folder, encoder


class Folder:
    """A copy of an exported folder that a test damages."""

    def __init__(self, source, path):
        shutil.copytree(source, path)
        self.path, self.config, self.weights = (
            path,
            path / "config.json",
            path / "model.safetensors",
        )

    def change_config(self, change):
        config = json.loads(self.config.read_text("utf-8"))
        change(config)
        self.config.write_text(json.dumps(config), "utf-8")

    def change_tensors(self, change):
        tensors = load_file(self.weights)
        change(tensors)
        save_file(tensors, self.weights)

    def change_header(self, change):
        data = self.weights.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        text = json.dumps(change(header) or header).encode()
        self.weights.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.fixture
def folder(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Folder(exported[0], tmp_path / "model")


def refuse(folder, *patterns):
    """Opens a folder that must be refused, in one line that says all of this."""
    with pytest.raises(ValueError) as caught:
        load_pretrained(folder.path)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1500
    for pattern in (str(folder.path), *patterns):
        assert pattern in message, message
    assert not os.path.exists(CANARY)


def encoder_arguments(config):
    return config["architecture"]["encoder"]["arguments"]


def transformer_arguments(config):
    wrapper = encoder_arguments(config)["transformer"]
    return wrapper["arguments"]["transformer"]["arguments"]


def replace(target, **values):
    """A change of a config: other values in the part that ``target`` gives."""
    return lambda config: target(config).update(values)


def test_a_copy_is_opened(folder, exported):
    wavs = torch.randn(1, 16000)
    with torch.no_grad():
        assert torch.equal(load_pretrained(folder.path)(wavs)[0], exported[1](wavs)[0])


@pytest.mark.parametrize(
    "called",
    ["os.system", "builtins.eval", "torch.load", "subprocess.Popen", "brainquant.recipe.main"]
    + ["torch.nn.Module.load_state_dict", "tests.canary", "torch.hub.load"],
)
def test_a_class_outside_the_list_is_not_even_imported(folder, called):
    attack = {"class": called, "arguments": [f"touch {CANARY}"]}
    folder.change_config(replace(encoder_arguments, normalize=attack))
    refuse(folder, called, "is not a class that an exported folder may name")


def test_a_module_beside_the_folder_is_not_imported(folder, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(f"open({CANARY!r}, 'w')", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    attack = {"class": "mine.Encoder", "arguments": {}}
    folder.change_config(lambda config: config["architecture"].update(encoder=attack))
    refuse(folder, "mine.Encoder")


@pytest.mark.parametrize("path", ["../../etc/passwd", "..", "/etc/passwd", "~/x", "C:\\x", "x.pt"])
def test_a_path_is_no_argument(folder, path):
    folder.change_config(replace(transformer_arguments, attention_type=path))
    refuse(folder, "attention_type", "is not allowed")


def kmeans(**arguments):
    """A k-means quantiser of a config.json."""
    arguments = {"input_dim": 320, **arguments}
    return {"class": "brainquant.quantisers.KMeansQuantizer", "arguments": arguments}


def test_centroids_are_no_path(folder):
    quantiser = kmeans(centroids="config")
    folder.change_config(lambda config: config["architecture"].update(quantiser=quantiser))
    refuse(folder, "centroids: must be the shape")


@pytest.mark.parametrize(
    ("target", "values", "said"),
    [
        (transformer_arguments, {"d_model": 10**9}, "far larger than the tensors"),
        (transformer_arguments, {"d_ffn": 10**12}, "far larger than the tensors"),
        (transformer_arguments, {"num_encoder_layers": 900}, "far larger than the tensors"),
        (transformer_arguments, {"num_encoder_layers": 10**9}, "num_encoder_layers: must be from"),
        (transformer_arguments, {"d_ffn": 72}, "has the shape"),
        (transformer_arguments, {"num_encoder_layers": 3}, "is missing"),
        (transformer_arguments, {"num_encoder_layers": 1}, "belongs to no part"),
        (transformer_arguments, {"max_length": 10**9}, "far larger than the tensors"),
        (encoder_arguments, {"stack": 10**9}, "far larger than the tensors"),
        (lambda c: encoder_arguments(c)["compute_features"]["arguments"], {"n_fft": 10**10},
         "far larger than the tensors"),
        (lambda c: encoder_arguments(c)["compute_features"]["arguments"], {"hop_length": 0.07},
         "far larger than the tensors"),
        (lambda c: c["architecture"]["quantiser"]["arguments"], {"cb_vocab": 10**10}, "far larger"),
        (lambda c: c["architecture"]["quantiser"]["arguments"], {"unheard_of": 1}, "unheard_of"),
        (lambda c: c["architecture"]["quantiser"], kmeans(clusters=10**10), "far larger"),
        (lambda c: c["architecture"]["quantiser"], kmeans(clusters=[9]), "clusters must be a pos"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_take_no_memory(folder, largest_tensor, target, values, said):
    folder.change_config(replace(target, **values))
    with largest_tensor() as largest:
        refuse(folder, said)
    assert largest.elements < 10**7


def name_of_first(header):
    return next(name for name in header if name != "__metadata__")


def shift(header):
    for name, entry in header.items():
        if name != "__metadata__":
            entry["data_offsets"] = [number + 4 for number in entry["data_offsets"]]


def overlap(header):
    names = [name for name in header if name != "__metadata__"]
    header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]


@pytest.mark.parametrize(
    "lie",
    [
        lambda header: header[name_of_first(header)].update(shape=[10**6, 10**6]),
        lambda header: header[name_of_first(header)].update(shape=[-1]),
        lambda header: header[name_of_first(header)].update(shape=[2**40, 2**40, 2**40]),
        lambda header: header[name_of_first(header)].update(dtype="F64"),
        lambda header: header[name_of_first(header)].update(dtype="F8_E4M3"),
        lambda header: header[name_of_first(header)].update(dtype=["F32"]),
        lambda header: header[name_of_first(header)].update(data_offsets=[0, 10**12]),
        lambda header: header[name_of_first(header)].update(data_offsets=[0]),
        lambda header: header[name_of_first(header)].update(more=1),
        lambda header: header.update(more={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
        lambda header: header.update({"a\nb": 3}),
        lambda header: {"x": header},
        lambda header: [header],
        shift,
        overlap,
        lambda header: header.pop(name_of_first(header)) and None,
    ],
)
def test_a_header_that_lies(folder, lie):
    folder.change_header(lie)
    refuse(folder, "model.safetensors")


def test_tensors_with_other_names_or_types(folder):
    names = "encoder.", "encoder.x"
    folder.change_header(lambda header: {n.replace(*names): entry for n, entry in header.items()})
    refuse(folder, "is missing")


@pytest.mark.parametrize("length", [0, 2**63, 2**24 + 1, 7])
def test_a_length_of_the_header_that_lies(folder, length):
    data = folder.weights.read_bytes()
    folder.weights.write_bytes(struct.pack("<Q", length) + data[8:])
    refuse(folder, "model.safetensors")


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_weights_that_were_cut_short(folder, cut):
    folder.weights.write_bytes(folder.weights.read_bytes()[:cut])
    refuse(folder, "model.safetensors")


def test_weights_with_something_after_them(folder):
    with open(folder.weights, "ab") as file:
        file.write(b"#!/bin/sh")
    refuse(folder, "model.safetensors", "its header describes")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(folder, value):
    name = "encoder.transformer.transformer.encoder.norm.norm.weight"
    folder.change_tensors(lambda tensors: tensors[name].view(-1)[-1:].fill_(value))
    refuse(folder, name, "NaN or infinite")


def test_one_changed_weight(folder):
    data = bytearray(folder.weights.read_bytes())
    data[-3] ^= 1
    folder.weights.write_bytes(bytes(data))
    refuse(folder, "the fingerprint does not fit")


def test_weights_of_another_type(folder):
    def halve(tensors):
        tensors.update({name: t.half() for name, t in tensors.items() if t.dtype == torch.float32})

    folder.change_tensors(halve)
    refuse(folder, "torch.float16", "torch.float32")


class Touch:
    """A pickle of it makes a file when it is loaded."""

    def __reduce__(self):
        return os.system, (f"touch {CANARY}",)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_in_disguise(folder, kind):
    if kind == "pickle":
        folder.weights.write_bytes(pickle.dumps(Touch()))
    else:
        torch.save({"encoder": Touch()}, folder.weights)
    shutil.copy(folder.weights, folder.path / "pytorch_model.bin")
    refuse(folder, "model.safetensors is not safetensors", "pickles are refused")


def test_a_newer_version(folder):
    folder.change_config(
        lambda config: config.update(format=2, made_by="brainquant 7.1.0", architecture="?")
    )
    refuse(folder, "made by brainquant 7.1.0, this is brainquant", "upgrade")


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1}', b'{"format": true}',
        b"[" * 200_000, b'{"a": ' * 5000 + b"1" + b"}" * 5000, b'{"format": ' + b"9" * 5000 + b"}",
        b'{"a": 1, "a": 2}', b'{"a": NaN}', b"{}" + b" " * 2**20, b'{"a": "\\ud800"}', b"\x00" * 99,
    ],
    ids=range(15),
)  # fmt: skip
def test_a_config_that_is_none(folder, text):
    folder.config.write_bytes(text)
    refuse(folder, "config.json")


@pytest.mark.parametrize("size", [0.2, 0.9, 0.99])
def test_a_truncated_config(folder, size):
    text = folder.config.read_bytes()
    folder.config.write_bytes(text[: int(size * len(text))])
    refuse(folder, "config.json is not JSON")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key in ("step", "dim", "architecture", "fingerprint", "made_by")
        for value in (None, True, "x\ny", 1e300, {"a": [1]}, -5)
        if (key, value) != ("step", None)  # it need not be known
    ],
)
def test_a_config_with_other_values(folder, key, value):
    folder.change_config(lambda config: config.update({key: value}))
    refuse(folder, "config.json")


def test_a_number_of_thousands_of_digits_makes_a_short_error(folder):
    folder.change_config(lambda config: config.update(dim=10**4000))
    refuse(folder, "dim is 1000")


def test_a_config_with_a_key_too_many_or_too_few(folder):
    folder.change_config(lambda config: config.update(auto_map={"AutoModel": "x.py"}))
    refuse(folder, "unknown key 'auto_map'")
    folder.change_config(lambda config: [config.pop("auto_map"), config.pop("dim")])
    refuse(folder, "lacks the key 'dim'")


def test_missing_files_and_files_that_are_none(folder):
    folder.weights.unlink()
    refuse(folder, "model.safetensors cannot be read")
    os.mkfifo(folder.weights)  # would wait for ever
    refuse(folder, "model.safetensors is not a file")


@pytest.mark.parametrize("fault", ["missing", "fifo", "broken link"])
def test_a_folder_without_its_config_is_no_run_whose_yaml_is_executed(folder, fault):
    folder.config.unlink()
    yaml = f"seed: !apply:os.system [touch {CANARY}]\n"
    (folder.path / "hyperparams.yaml").write_text(yaml, "utf-8")
    if fault == "fifo":
        os.mkfifo(folder.config)
    elif fault == "broken link":
        folder.config.symlink_to("nowhere")
    for used in (load_pretrained, load_encoder):
        with pytest.raises(ValueError, match="config.json (cannot be read|is not a file)"):
            used(str(folder.path))
        assert not os.path.exists(CANARY)


def test_an_error_shows_the_path_as_it_is(folder):
    folder.path = folder.path.rename(folder.path.with_name("modèle 音声"))
    (folder.path / "config.json").write_text("{", "utf-8")
    refuse(folder, "modèle 音声/config.json is not JSON")


def test_sizes_that_do_not_fit_log_nothing_before_the_error(folder, monkeypatch):
    records, log = [], logging.getLogger("torch._subclasses.fake_tensor")
    monkeypatch.setattr(log, "filters", [records.append])
    folder.change_config(replace(transformer_arguments, input_size=7))
    refuse(folder, "architecture")
    assert not records and log.isEnabledFor(logging.ERROR)


def nodes(value, path=()):
    """Paths to all values in a tree."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from nodes(value[key], (*path, key))


numbers = st.one_of(
    st.integers(-3, 20), st.sampled_from([2**31, 2**63, 10**6, 10**9, 10**18, -(10**9), 4096]),
    st.floats(), st.floats(0, 2),
)  # fmt: skip
leaves = st.one_of(
    numbers, st.none(), st.booleans(), st.text(max_size=8),
    st.sampled_from(["global", "sentence", "transformer", "branchformer", "regularMHA", "same"]),
)  # fmt: skip
arguments = st.just({}) | st.lists(numbers, max_size=3)
calls = st.fixed_dictionaries({"class": st.sampled_from(sorted(ALLOWED)), "arguments": arguments})
values = st.recursive(leaves | calls, lambda inner: st.lists(inner, max_size=4), max_leaves=5)


def mutated(data, tree):
    """A copy of a tree with one or two other values, or without them."""
    tree = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([path for path in nodes(tree) if path]))
        owner = functools.reduce(lambda value, key: value[key], path[:-1], tree)
        if data.draw(st.integers(0, 5)):
            owner[path[-1]] = data.draw(values)
        else:
            del owner[path[-1]]
    return tree


@pytest.fixture
def opened_or_refused(largest_tensor):
    """Opens a folder with little memory; None if it is refused in one line."""

    def open_it(path):
        with largest_tensor() as largest:
            try:
                opened = open_folder(path)
            except ValueError as error:
                assert str(error).isprintable() and str(path) in str(error)
                opened = None
        assert largest.elements < 2**26
        return opened

    return open_it


@pytest.mark.parametrize("forged", [False, True], ids=["fuzz", "forged fingerprint"])
def test_any_config_gives_the_model_or_one_clear_line(
    exported, opened_or_refused, tmp_path, forged, monkeypatch
):
    source, encoder = exported
    folder = Folder(source, tmp_path / "model")
    original = json.loads(folder.config.read_text("utf-8"))
    real = encoder.fingerprint()
    if forged:
        monkeypatch.setattr(PretrainedEncoder, "fingerprint", lambda self: real)

    @settings(max_examples=60)
    @given(st.data())
    def fuzz(data):
        config = mutated(data, original)
        folder.config.write_text(json.dumps(config), "utf-8")
        opened = opened_or_refused(folder.path)
        if opened is not None and not forged:
            assert opened.fingerprint() == real

    fuzz()


@pytest.mark.parametrize("kind", ["bytes", "values"])
def test_any_header_gives_the_model_or_one_clear_line(exported, opened_or_refused, tmp_path, kind):
    source, encoder = exported
    folder = Folder(source, tmp_path / "model")
    whole = folder.weights.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:end])
    places = st.tuples(st.integers(0, end - 1), st.integers(0, 255))

    @given(st.data())
    def fuzz(data):
        if kind == "values":
            text = json.dumps(mutated(data, header)).encode()
            changed = struct.pack("<Q", len(text)) + text + whole[end:]
        else:
            changed = bytearray(whole)
            for place, byte in data.draw(st.lists(places, max_size=3)):
                changed[place] = byte
        folder.weights.write_bytes(bytes(changed))
        opened = opened_or_refused(folder.path)
        assert opened is not None or changed != whole
        assert opened is None or opened.fingerprint() == encoder.fingerprint()

    fuzz()
