"""What SpeechBrain's two quantisers can be used with, ours can: both are tried, side by side."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from speechbrain.lobes.models.wav2vec import W2VTargetQuantiser
from speechbrain.nnet import quantisers as stock
from torch.func import functional_call

import brainquant

SIZES = {
    "RandomProjectionQuantizer": (12, 4, 32),
    "GumbelVectorQuantizer": (12, 10, (2.0, 0.25, 0.99), 2, 8),
}


def build(package, name, *sizes, **keywords):
    torch.manual_seed(0)
    return getattr(package, name)(*(sizes or ([] if keywords else SIZES[name])), **keywords)


def frames(*shape, dtype=torch.float32):
    x = torch.randn(*(shape or (3, 20, 12)), generator=torch.Generator().manual_seed(1))
    return x.to(dtype)


def target_quantiser(package, **keywords):
    """SpeechBrain's module around the Gumbel quantiser."""
    torch.manual_seed(0)
    return W2VTargetQuantiser(12, 8, package.GumbelVectorQuantizer, 10, **keywords).eval()


def through_bytes(save, load, thing):
    file = io.BytesIO()
    save(thing, file)
    file.seek(0)
    return load(file)


def pickled(module):
    return pickle.loads(pickle.dumps(module))


def saved(module):
    return through_bytes(torch.save, lambda file: torch.load(file, weights_only=False), module)


def on_meta(package, name):
    """The shape and dtype of what a module without data gives."""
    output = build(package, name).eval().to("meta")(frames().to("meta"))
    return torch.empty_like(
        output["x"] if isinstance(output, dict) else output, device="cpu"
    ).zero_()


def under_device(package, name):
    with torch.device("meta"):
        module = build(package, name)
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"meta"}
    return torch.tensor([tensor.numel() for tensor in module.state_dict().values()])


def in_default_float64(package, name):
    torch.set_default_dtype(torch.float64)
    try:
        return build(package, name).eval()(frames(dtype=torch.float64))
    finally:
        torch.set_default_dtype(torch.float32)


def swapped_state(package, name):
    """SpeechBrain's weights in either."""
    module = build(package, name)
    module.load_state_dict(build(stock, name).state_dict(), strict=True)
    return module.eval()(frames())


def called_with_weights(package, name):
    module = build(package, name).eval()
    return functional_call(module, dict(module.state_dict()), (frames(),))


def checkpointed(package, name):
    module, x = build(package, name).train(), frames().requires_grad_()
    torch.manual_seed(3)
    output = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)
    if isinstance(output, dict):
        (grad,) = torch.autograd.grad(output["x"].square().sum(), x)
        return {"x": output["x"], "grad": grad}
    return output


def without_gradient(mode):
    def use(package, name):
        with mode():
            return build(package, name).eval()(frames())

    return use


def under_autocast(package, name):
    with torch.autocast("cpu", torch.bfloat16):
        output = build(package, name).eval()(frames())
    # SpeechBrain's codes differ there; the dtype of its result is what others build on.
    return torch.empty_like(output["x"]).zero_() if isinstance(output, dict) else output * 0


def scripted(package, name):
    return torch.jit.script(build(package, name).eval())(frames())


def scripted_and_saved(package, name):
    module = torch.jit.script(build(package, name).eval())
    return through_bytes(torch.jit.save, torch.jit.load, module)(frames(2, 7, 12))


def traced(package, name):
    module = torch.jit.trace(build(package, name).eval(), frames())
    return through_bytes(torch.jit.save, torch.jit.load, module)(frames(2, 700, 12))


def mapped(package, name):
    return torch.vmap(build(package, name).eval())(frames(2, 3, 20, 12))


def of_dtype(dtype):
    def use(package, name):
        output = build(package, name).eval().to(dtype)(frames(dtype=dtype))
        # Codes in low precision differ; the shape and dtype are what others build on.
        return torch.empty_like(output["x"]).zero_() if isinstance(output, dict) else output * 0

    return use


USES = {
    "by position": lambda package, name: build(package, name).eval()(frames()),
    "by keyword": lambda package, name: build(
        package,
        name,
        **dict(
            zip(
                {
                    "RandomProjectionQuantizer": ("input_dim", "cb_dim", "cb_vocab"),
                    "GumbelVectorQuantizer": (
                        "input_dim", "num_vars", "temp_tuple", "groups", "vq_dim",
                    ),
                }[name],
                SIZES[name],
            )
        ),
    ).eval()(x=frames()),
    "NumPy's sizes": lambda package, name: build(
        package, name, *(n if isinstance(n, tuple) else np.int64(n) for n in SIZES[name])
    ).eval()(frames()),
    "deepcopy": lambda package, name: copy.deepcopy(build(package, name)).eval()(frames()),
    "pickle": lambda package, name: pickled(build(package, name)).eval()(frames()),
    "torch.save": lambda package, name: saved(build(package, name)).eval()(frames()),
    "state_dict": swapped_state,
    "functional_call": called_with_weights,
    "meta": on_meta,
    "under torch.device": under_device,
    "default float64": in_default_float64,
    "not contiguous": lambda package, name: build(package, name).eval()(frames(3, 12, 20).mT),
    "requires grad": lambda package, name: build(package, name).eval()(frames().requires_grad_()),
    "checkpoint": checkpointed,
    "inference_mode": without_gradient(torch.inference_mode),
    "no_grad": without_gradient(torch.no_grad),
    "autocast": under_autocast,
    "script": scripted,
    "script, saved": scripted_and_saved,
    "trace, other batch": traced,
    "vmap": mapped,
    "half": of_dtype(torch.float16),
    "bfloat16": of_dtype(torch.bfloat16),
    "double": of_dtype(torch.float64),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SIZES))
@pytest.mark.parametrize("use", list(USES))
def test_what_speechbrain_s_can_be_used_with_ours_can(use, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        try:
            expected = USES[use](stock, name)
        except Exception as error:  # whatever it is that SpeechBrain's cannot
            pytest.skip(f"nor can SpeechBrain's: {type(error).__name__}")
        seen = USES[use](brainquant, name)
    if isinstance(expected, torch.Tensor):
        assert seen.dtype == expected.dtype and torch.equal(seen, expected)
    else:
        assert expected.keys() <= seen.keys()
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                # SpeechBrain's perplexities are float32 in a module of float64 too.
                torch.testing.assert_close(seen[key], value, check_dtype=key in ("x", "grad"))
            else:
                assert seen[key] == value


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_target_quantiser_of_wav2vec_takes_ours_in_any_dtype(dtype):
    expected, expected_meta = target_quantiser(stock).to(dtype)(frames(dtype=dtype))
    seen, seen_meta = target_quantiser(brainquant).to(dtype)(frames(dtype=dtype))
    assert seen.dtype == expected.dtype == dtype and seen.shape == expected.shape
    assert seen_meta.keys() == expected_meta.keys()
    module, low = target_quantiser(brainquant), target_quantiser(brainquant).to(dtype)
    codes = module.to(dtype).float().quantiser.encode(frames(dtype=dtype).float())
    assert torch.equal(low.quantiser.encode(frames(dtype=dtype)), codes)  # those of float32


@pytest.mark.parametrize(
    "temperatures",
    [
        tuple(map(np.float32, (2.0, 0.25, 0.99))),
        [np.float64(2.0), 1, np.float32(0.5)],
        np.array([2.0, 0.25, 0.99]),
        torch.tensor([2.0, 0.25, 0.99]),
    ],
)
def test_temperatures_and_steps_of_numpy_and_torch_anneal(temperatures):
    outputs = []
    for package in (stock, brainquant):
        quantiser = build(package, "GumbelVectorQuantizer", 12, 10, temperatures, 2, 8).train()
        for steps in (np.int64(3), 4):
            quantiser.update_temp(steps)
        torch.manual_seed(3)
        outputs.append(quantiser(frames()))
    assert float(outputs[0]["temp"]) == pytest.approx(outputs[1]["temp"])
    torch.testing.assert_close(outputs[1]["x"], outputs[0]["x"])


@pytest.mark.parametrize("options", [{"num_codebooks": 3}, {"whiten": True}])
def test_torchscript_has_the_codes_of_our_own_options(options):
    quantiser = build(brainquant, "RandomProjectionQuantizer", 12, 4, 32, seed=0, **options)
    x = frames(2, 300, 12)
    if quantiser.frames_to_fit:
        quantiser.fit(x.flatten(0, 1))
    x[1, 5] = torch.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in (torch.jit.script(quantiser), torch.jit.trace(quantiser, frames(1, 4, 12))):
            assert torch.equal(module(x), quantiser(x))


def test_a_seed_draws_the_same_tables_whatever_the_default_device():
    expected = build(brainquant, "RandomProjectionQuantizer", 12, 4, 32, seed=5).state_dict()
    with torch.device("meta"):
        tables = build(brainquant, "RandomProjectionQuantizer", 12, 4, 32, seed=5).state_dict()
        vector = brainquant.VectorQuantizer(12, 10, 2, 8)
    assert {name: table.shape for name, table in tables.items()} == {
        name: table.shape for name, table in expected.items()
    }
    assert {tensor.device.type for tensor in vector.state_dict().values()} == {"meta"}
