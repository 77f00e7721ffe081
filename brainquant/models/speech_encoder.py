"""The encoder of a pretrained run, as a module that is trained on for another task.

Shape suffixes: B batch, L samples, T encoder frames, D dim.
"""

import itertools
import os
import shutil
from types import NoneType, SimpleNamespace

import torch
from speechbrain.processing.features import InputNormalization

from ..brains.stock import StockBestRQ, is_stock
from ..brains.trained import find_hparams, load_trained, open_run, without_seeding
from ..training.needed_files import FOLDER as NEEDED
from ..training.resolve import HPARAMS
from .layers import has_parameters

LISTS = (torch.nn.ModuleList, torch.nn.Sequential)  # of layers


def load_encoder(folder, *, from_scratch=False, weights=True):
    """The encoder of a pretraining run, to be trained on: for ``!apply:`` in a YAML.

    Arguments
    ---------
    folder : str
        The ``output_folder`` of a run of this package's Brains, or of SpeechBrain's BEST-RQ recipe.
    from_scratch : bool
        Whether its parameters are drawn anew, for comparison. What was not trained, such as the
        statistics of a normalisation, is that of the run all the same.
    weights : bool
        False: neither weights nor statistics are loaded, since a checkpoint of the run that uses
        the encoder is about to give it both. Written into the YAML of such a run.

    Returns
    -------
    encoder : SpeechEncoder

    Raises
    ------
    ValueError
        Where the folder is not that of a run, or has no whole checkpoint.
    """
    path = find_hparams(folder)
    changes = without_seeding(path)  # the seed is that of the YAML which is trained now
    if is_stock(path):
        brain = StockBestRQ(path, changes)
        if weights:
            brain.load(os.path.join(folder, "save"))
    elif not weights:
        brain, _ = open_run(folder, overrides=changes)
    else:
        brain = load_trained(folder, overrides=changes)
    if not weights:
        # SpeechBrain's normalisation over the corpus has no sizes before it has seen a clip.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            rate = brain.hparams.sample_rate
            brain.modules.train()
            brain.encode(torch.zeros(1, rate), torch.tensor([rate]))
    if from_scratch and weights:
        stock = isinstance(brain, StockBestRQ)
        fresh = StockBestRQ(path, changes) if stock else open_run(folder, overrides=changes)[0]
        for name, module in fresh.modules.items():
            if has_parameters(module):
                brain.modules[name] = module
    encoder = SpeechEncoder(brain)
    encoder.lacks_weights = not weights
    return encoder


def keep_pretraining(argument, folder, kept):
    """Keeps what the sizes of an encoder are built from: for ``files_needed`` of ``load_encoder``.

    Its weights are in the checkpoints of the run that uses it.

    Arguments
    ---------
    argument : str
        The argument that names the pretraining.
    folder : str
        The folder of the pretraining.
    kept : str
        Where a copy is made, unless there is one.

    Returns
    -------
    arguments : dict or None
        Those of ``load_encoder`` that lead to the copy; None where there are neither.
    """
    if not os.path.isfile(os.path.join(kept, HPARAMS)):
        if not os.path.isfile(os.path.join(folder, HPARAMS)):
            return None
        os.makedirs(kept, exist_ok=True)
        if os.path.isdir(needed := os.path.join(folder, NEEDED)):
            shutil.copytree(needed, os.path.join(kept, NEEDED), dirs_exist_ok=True)
        shutil.copyfile(os.path.join(folder, HPARAMS), os.path.join(kept, HPARAMS))
    return {argument: kept, "weights": False}


load_encoder.files_needed = {"folder": keep_pretraining}


class SpeechEncoder(torch.nn.Module):
    """What encodes audio in a Brain that was pretrained, as a module that can be trained on.

    It has the modules that ``brain.encode`` calls, without quantiser, head and projections. What
    has no parameters stays in evaluation mode: a normalisation keeps the statistics of the
    pretraining. Beside its modules it has plain values only, so it can be copied and pickled.

    Arguments
    ---------
    brain : PretrainBrain or StockBestRQ
        Has ``encode``, ``count_frames``, ``modules`` with an ``encoder``, and ``hparams``.

    Attributes
    ----------
    dim : int
        Size of the outputs.
    sample_rate : int
        Of the audio that it was trained on, in Hz.
    min_samples : int
        The shortest audio that makes a frame.
    lacks_weights : bool
        Whether it waits for the weights of a checkpoint, and cannot be trained without one.
    """

    lacks_weights = False

    def __init__(self, brain):
        super().__init__()
        self.sample_rate = brain.hparams.sample_rate
        self.min_samples = next(n for n in itertools.count(1) if brain.count_frames(n) > 0)
        num_samples = max(self.sample_rate, self.min_samples)
        noise_BL = torch.randn(1, num_samples, generator=torch.Generator())
        lengths_B = torch.tensor([num_samples])
        self.parts = torch.nn.ModuleDict({
            name: brain.modules[name] for name in called_modules(brain, noise_BL, lengths_B)
        })  # fmt: skip
        if compute_features := getattr(brain.hparams, "compute_features", None):
            self.parts["compute_features"] = compute_features  # goes to the same device
        self.encoding = without_training(brain, self.parts)
        for module in self.parts.modules():
            if isinstance(module, InputNormalization):
                # No buffers in SpeechBrain 1.1.2: they stay on the CPU, and in no checkpoint.
                for name in ("glob_mean", "glob_std"):
                    statistic = getattr(module, name)
                    delattr(module, name)
                    module.register_buffer(name, statistic)
        # The embedding of what is masked, for one: DistributedDataParallel would wait for it.
        hidden_BTD = self.encoding.encode(noise_BL, lengths_B)
        self.dim = hidden_BTD.shape[2]
        parameters = [p for p in self.parts.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(hidden_BTD.sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients):
            parameter.requires_grad_(gradient is not None)

    def forward(self, wavs_BL, lengths_B):
        """Outputs of the last layer.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, shape (batch, samples).
        lengths_B : torch.Tensor
            Samples of each.

        Returns
        -------
        hidden_BTD : torch.Tensor
            Shape (batch, frames, dim).
        frames_B : torch.Tensor
            Valid frames of each.
        """
        hidden_BTD = self.encoding.encode(wavs_BL, lengths_B)
        frames = [max(self.encoding.count_frames(length), 0) for length in lengths_B.tolist()]
        return hidden_BTD, torch.tensor(frames, device=hidden_BTD.device)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """As for any module; the statistics of a normalisation have the size of those saved."""
        for name, module in self.parts.named_modules(prefix=f"{prefix}parts"):
            if isinstance(module, InputNormalization):
                for statistic in ("glob_mean", "glob_std"):
                    saved = state_dict.get(f"{name}.{statistic}")
                    if isinstance(saved, torch.Tensor):
                        setattr(module, statistic, torch.empty_like(saved))
        self.lacks_weights = False
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode=True):
        """As for any module, but for what has no parameters."""
        super().train(mode)
        for part in self.parts.values():
            part.train(mode and has_parameters(part))
        return self

    @property
    def layers(self):
        """The encoder's layers, from the lowest to the last."""
        return self._layers()[1]

    def _layers(self):
        """The module that has the layers, and they themselves."""
        modules = self.parts["encoder"].modules()
        return next((m, m.layers) for m in modules if isinstance(getattr(m, "layers", None), LISTS))

    def parameters_by_layer(self):
        """Trainable parameters by their place, for learning rates that differ by layer.

        Returns
        -------
        groups : list of list of torch.nn.Parameter
            First of all that is below the layers, then of each layer; what comes after the last
            one, such as a norm, is in its group.
        """
        owner, layers = self._layers()
        depth_of = {id(p): len(layers) for p in owner.parameters()}
        for depth, layer in enumerate(layers, start=1):
            depth_of.update({id(p): depth for p in layer.parameters()})
        groups = [[] for _ in range(len(layers) + 1)]
        for parameter in self.parameters():
            if parameter.requires_grad:
                groups[depth_of.get(id(parameter), 0)].append(parameter)
        return groups


def called_modules(brain, wavs_BL, lengths_B):
    """Names of the modules that ``encode`` calls, in the order of the alphabet."""
    called = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
        for name, module in brain.modules.items()
    ]
    brain.modules.eval()
    with torch.no_grad():
        brain.encode(wavs_BL, lengths_B)
    for hook in hooks:
        hook.remove()
    return sorted(called)


def without_training(brain, parts):
    """What encodes as a Brain does, without its checkpointer, loggers, optimiser and locks.

    Arguments
    ---------
    brain : PretrainBrain or StockBestRQ
        Has ``encode`` and ``count_frames``.
    parts : torch.nn.ModuleDict
        The modules that these call.

    Returns
    -------
    encoding : PretrainBrain or StockBestRQ
        Of the same class, never initialised: it has the parts, and plain values of the other.
    """
    encoding = object.__new__(type(brain))
    hparams = {name: value for name, value in vars(brain.hparams).items() if is_plain(value)}
    if "compute_features" in parts:
        hparams["compute_features"] = parts["compute_features"]
    vars(encoding).update({name: value for name, value in vars(brain).items() if is_plain(value)})
    vars(encoding).update(modules=parts, hparams=SimpleNamespace(**hparams))
    return encoding


def is_plain(value):
    """Whether a value is a number, a text, or a list, tuple or dictionary of such.

    Example
    -------
    >>> is_plain([("stack", 4), None]), is_plain({"lock": object()})
    (True, False)
    """
    if isinstance(value, dict):
        return is_plain([*value.items()])
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return isinstance(value, (int, float, str, NoneType, torch.device, torch.dtype))
