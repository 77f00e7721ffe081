"""What the modules of a run of SpeechBrain's own recipes are built from, as calls.

As ``brainquant.brains.stock`` and ``brainquant.brains.speechbrain_runs`` build them.
"""

from __future__ import annotations

import inspect
import os
import pydoc
from typing import Any

from speechbrain.lobes.models.wav2vec import W2VTargetQuantiser
from speechbrain.nnet.quantisers import RandomProjectionQuantizer

from ..brains.speechbrain_runs import HPARAMS, load_best_rq, load_wav2vec2, own_classes
from ..brains.stock import NORMALISATION
from .describing import Call, load_calls


def parts_of(call: Call) -> dict[str, Call] | None:
    """The encoder and the quantiser that a call of a YAML takes from a run of SpeechBrain.

    Arguments
    ---------
    call : Call
        Any ``!apply:``; None if it takes nothing from such a run.
    """
    called = pydoc.locate(call.path)
    if called not in (load_best_rq, load_wav2vec2):
        return None
    document = load_calls(own_classes(os.path.join(call.arguments["model"], HPARAMS)))
    if called is load_best_rq:
        tables = _arguments(RandomProjectionQuantizer, document["modules"]["Quantizer"])
        quantiser = Call("new", "brainquant.quantisers.RandomProjectionQuantizer", tables)
        return {"encoder": best_rq_encoder(document, in_chunks=True), "quantiser": quantiser}
    return _wav2vec2(document, call.arguments)


def best_rq_encoder(document: Any, *, in_chunks: bool = False) -> Call:
    """The encoder of a run of the BEST-RQ recipe, see ``brainquant.brains.stock.make_encoder``."""
    modules = document["modules"]
    kept = {n: v for n, v in modules["normalize"].arguments.items() if n in NORMALISATION}
    transformer = modules["wrapper"]
    if in_chunks and document.get("streaming"):
        sampler = document["dynchunktrain_config_sampler"]
        chunked = {"transformer": transformer.arguments["transformer"], "sampler": sampler}
        transformer = Call("new", "brainquant.models.DynamicChunkEncoder", chunked)
    arguments = {
        "compute_features": document["compute_features"],
        "normalize": Call("new", "brainquant.models.InputNormalization", kept),
        "front_end": modules["CNN"],
        "transformer": transformer,
        "stack": document["pad_to_divisible_by"],
    }
    return Call("new", "brainquant.models.BestRQEncoder", arguments)


def _wav2vec2(document: Any, given: dict[str, Any]) -> dict[str, Call]:
    modules = document["modules"]
    extractor = modules["latent_extractor"]
    scale = {"gradient_scale": given.get("gradient_scale", 1.0)}
    arguments = {
        "extractor": Call(extractor.kind, extractor.path, {**extractor.arguments, **scale}),
        "transformer": modules["latent_encoder"],
        "sample_rate": document.get("sample_rate", 16000),
    }
    quantiser = _arguments(W2VTargetQuantiser, modules["target_quantiser"])
    lowest = quantiser["temperature_decay"][1]
    codes = {
        "input_dim": quantiser["in_dim"],
        "num_vars": quantiser["num_vars"],
        "temp_tuple": [lowest, lowest, 1.0],
        "groups": 2,
        "vq_dim": quantiser["out_dim"],
    }
    return {
        "encoder": Call("new", "brainquant.models.Wav2Vec2Encoder", arguments),
        "quantiser": Call("new", "brainquant.quantisers.GumbelVectorQuantizer", codes),
    }


def _arguments(called: type, call: Call) -> dict[str, Any]:
    """All arguments of a call by name, defaults included."""
    given = call.arguments
    signature = inspect.signature(called)
    bound = signature.bind(**given) if isinstance(given, dict) else signature.bind(*given)
    bound.apply_defaults()
    return dict(bound.arguments)
