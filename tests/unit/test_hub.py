"""The Hub: push, then load by name, over HTTP to a server of this machine."""

import shutil
import sys

import huggingface_hub.constants
import huggingface_hub.utils
import pytest
import torch
from hub_server import TOKEN, Hub, Repository, use
from speechbrain.inference import WaveformEncoder

import brainquant
from brainquant.huggingface.hub import FILES, download, is_hub_id
from brainquant.publishing.push import push
from brainquant.recipe import keep_pretraining, load_encoder

NAME = "somebody/best-rq"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A running hub, an empty cache, and nobody logged in."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with Hub() as server:
        use(server, tmp_path, monkeypatch, HF_HUB_OFFLINE=False)
        yield server


@pytest.fixture
def logged_in(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def put(hub, name, folder, **options):
    """Puts a folder into the hub without a push, and gives the name of the commit."""
    hub.repositories[name] = Repository(**options)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return hub.repositories[name].commit("main", files)


def test_a_model_is_pushed_and_loaded_by_its_name(hub, exported, tmp_path, start_program):
    folder = shutil.copytree(exported("best_rq"), tmp_path / "model")
    (folder / "notes.txt").write_text("nobody else's business", "utf-8")
    command = ["-m", "brainquant.cli", "push", folder, NAME, "--revision", "v1"]
    variables = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_VERBOSITY": "debug",
    }  # fmt: skip
    pushed = start_program(*command, variables=variables, cwd=tmp_path)
    shown, errors = pushed.communicate(timeout=120)
    assert pushed.returncode == 0, errors[-2000:]
    line = f'uploaded to {hub.url}/{NAME}; load it with brainquant.load_pretrained("{NAME}", '
    assert line + 'revision="v1")' in shown
    assert TOKEN not in shown + errors
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    repository = hub.repositories[NAME]
    assert sorted(repository.commits[repository.branches["v1"]]) == sorted(FILES)

    wavs = torch.randn(2, 16000)
    expected = brainquant.load_pretrained(exported("best_rq"))(wavs).hidden
    loaded = brainquant.load_pretrained(NAME, revision="v1")
    assert torch.equal(loaded(wavs).hidden, expected)
    hub.__exit__()  # and again from the cache
    assert torch.equal(brainquant.load_pretrained(NAME, revision="v1")(wavs).hidden, expected)


def test_a_revision_is_a_branch_or_a_commit(hub, exported, tmp_path, monkeypatch):
    first = put(hub, NAME, exported("best_rq"))
    second = hub.repositories[NAME].commit("main", {"README.md": b"second"})
    assert first != second
    assert (tmp_path / download(NAME) / "README.md").read_bytes() == b"second"
    assert (tmp_path / download(NAME, first) / "README.md").read_bytes() != b"second"
    hub.requests.clear()
    use(hub, tmp_path, monkeypatch, HF_HUB_OFFLINE=True)
    for revision in (None, "main", first, second):
        download(NAME, revision)
    assert not hub.requests


def test_a_folder_never_uses_the_network(hub, exported, tmp_path, monkeypatch):
    put(hub, NAME, exported("wav2vec2"))
    shutil.copytree(exported("best_rq"), tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    here = brainquant.load_pretrained(NAME)
    assert here.fingerprint() == brainquant.load_pretrained(exported("best_rq")).fingerprint()
    with pytest.raises(ValueError, match="there is no folder runs/a/b, and it is no Hub id"):
        brainquant.load_pretrained("runs/a/b")
    assert not hub.requests


@pytest.mark.parametrize("savedir", [None, "saved"])
def test_speechbrain_loads_a_model_of_the_hub(savedir, hub, exported, tmp_path):
    put(hub, NAME, exported("best_rq"))
    savedir = savedir and str(tmp_path / savedir)
    encoder = WaveformEncoder.from_hparams(source=NAME, savedir=savedir)
    wavs = torch.randn(1, 16000)
    with torch.no_grad():
        expected = brainquant.load_pretrained(exported("best_rq"))(wavs).hidden
        assert torch.equal(encoder.encode_batch(wavs, torch.ones(1))["embeddings"], expected)


def test_fine_tuning_begins_from_a_model_of_the_hub_and_keeps_its_config(hub, exported, tmp_path):
    put(hub, NAME, exported("best_rq"))
    encoder, expected = load_encoder(NAME), load_encoder(str(exported("best_rq")))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor), name
    kept = str(tmp_path / "kept")
    assert keep_pretraining("folder", NAME, kept) == {"folder": kept, "weights": False}
    hub.requests.clear()
    assert load_encoder(**keep_pretraining("folder", NAME, kept)).lacks_weights
    assert not hub.requests


def test_ids_have_the_form_that_the_hub_demands():
    validate = huggingface_hub.utils.validate_repo_id
    for name in ["a/b", "a.b/c_d-e", "A1/x--y", "a/b..c", "a/-b", "a/b-", "a b/c", "a/b\n", "ü/b"]:
        if is_hub_id(name):
            validate(name)
    for name in ["a", "/a", "a/", "./a", "../a", "a/b/c", "~/a", "C:/a", "a//b", "", "a/.b"]:
        assert not is_hub_id(name)


@pytest.mark.parametrize(
    "name, revision, message",
    [
        ("somebody/none", None, "there is no folder somebody/none, and no model somebody/none on"),
        ("somebody/private", None, "or it is private; correct the name, or log in with"),
        (NAME, "v9", "somebody/best-rq on .* has no revision v9; give a branch"),
        ("somebody/gated", None, "somebody/gated is gated: accept its terms on http"),
        ("somebody/empty", None, "has no config.json, so it is no model that can be loaded"),
    ],
)
def test_what_cannot_be_downloaded_is_one_line(name, revision, message, hub, exported):
    put(hub, NAME, exported("best_rq"))
    put(hub, "somebody/private", exported("best_rq"), private=True)
    put(hub, "somebody/gated", exported("best_rq"), gated=True)
    hub.repositories["somebody/empty"] = Repository()
    with pytest.raises(ValueError, match=message) as error:
        brainquant.load_pretrained(name, revision=revision)
    assert "\n" not in str(error.value)


def test_without_a_connection_it_says_what_is_not_in_the_cache(hub, monkeypatch, tmp_path):
    hub.__exit__()
    with pytest.raises(
        ValueError, match="is no folder and not in .*home/hub, and http.* not answer"
    ):
        download(NAME)
    use(hub, tmp_path, monkeypatch, HF_HUB_OFFLINE=True)
    with pytest.raises(ValueError, match="revision v1 of .* and HF_HUB_OFFLINE is set; unset it"):
        download(NAME, "v1")
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", None)
    with pytest.raises(ImportError, match=r'pip install "brainquant\[hub\]"'):
        download(NAME)


def test_the_login_of_this_machine_opens_a_private_model(hub, exported, logged_in):
    url = push(exported("best_rq"), NAME, private=True)
    assert url == f"{hub.url}/{NAME}" and hub.repositories[NAME].private
    assert brainquant.load_pretrained(NAME).step == 1
    commits = len(hub.repositories[NAME].commits)
    push(exported("best_rq"), NAME, private=True)  # once more
    assert len(hub.repositories[NAME].commits) == commits


@pytest.mark.parametrize(
    "name, token, options, message",
    [
        ("best-rq", TOKEN, {}, "best-rq is no Hub id; give user/name"),
        (NAME, None, {}, "nobody is logged in on http.*; log in with `hf auth login`"),
        (NAME, "hf_secret", {}, f"refuses {NAME} with HTTP 401 .Invalid credentials.*; log in"),
        ("other/model", TOKEN, {}, "refuses other/model with HTTP 403 .You don't have.*; log in"),
        ("somebody/public", TOKEN, {"private": True}, "exists already and is public, so nothing"),
    ],
)
def test_a_push_that_may_not_be_uploads_nothing(
    name, token, options, message, hub, exported, monkeypatch
):
    hub.repositories["somebody/public"] = Repository()
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match=message) as error:
        push(exported("best_rq"), name, **options)
    assert token is None or token not in str(error.value)
    assert not hub.large_files and not any("/commit/" in path for _, path in hub.requests)


def test_a_model_card_that_the_hub_refuses_is_one_line(hub, exported, tmp_path, logged_in):
    folder = shutil.copytree(exported("best_rq"), tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: [no]\n---\n", "utf-8")
    with pytest.raises(ValueError, match="^Invalid metadata in README.md. - .license. must be"):
        push(folder, NAME)
    assert not any("/commit/" in path for _, path in hub.requests)


def test_only_an_exported_folder_is_pushed(hub, pretrained_run, exported, tmp_path, logged_in):
    broken = shutil.copytree(exported("best_rq"), tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no tensors")
    for folder in (pretrained_run("best_rq"), tmp_path / "none"):
        with pytest.raises(ValueError, match="is not an exported folder; make one .* export RUN"):
            push(folder, NAME)
    with pytest.raises(ValueError, match="model.safetensors is not safetensors"):
        push(broken, NAME)
    assert not hub.requests
