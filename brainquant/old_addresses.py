"""Old YAMLs: old addresses work for one version, with a DeprecationWarning.

An address stands in a YAML as in ``!new:brainquant.features.Wav2Vec2Extractor``.
``brainquant/__init__.py`` installs the finder below; Python asks it for modules that do not exist.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Collection, Sequence

UNTIL = "the old address works up to version 0.1"

# The new modules of an old one.
MODULES: dict[str, tuple[str, ...]] = {
    "features": ("models.features", "models.extractor"),
    "encoders": ("models.layers",),
    "quick_layers": ("models.quick",),
    "monitors": ("monitoring.counts",),
    "plots": ("monitoring.report",),
    "brains.base": ("brains.pretrain",),
    "brains.speech_encoder": ("models.speech_encoder",),
    "evaluation.spectrum": ("monitoring.spectrum",),
    "functional.convolution": ("models.convolution",),
    "functional.dropout": ("models.dropout",),
    "functional.draws": ("quantisers.draws",),
    "functional.nearest": ("search.nearest",),
    "functional.nearest_numba": ("search.compiled",),
    "functional.nearest_script": ("search.script",),
    "functional.nearest_table": ("search.table",),
    "functional.nearest_torch": ("search.plain",),
    "functional.nearest_triton": ("search.gpu",),
    "functional.numba_tile": ("search.tile",),
    "inference.hub": ("huggingface.hub",),
    "training.errors": ("errors",),
    "training.finite_steps": ("training.steps",),
    "training.launcher": ("processes.launcher",),
    "training.long_run": ("training.brain",),
    "training.own_files": ("own_files",),
    "training.placement": ("training.device_options",),
    "training.resume": ("training.place",),
    "training.run_log": ("monitoring.run_log",),
    "training.signals": ("processes.signals",),
    "training.streams": ("processes.streams",),
    "training.tensorboard": ("monitoring.tensorboard",),
}
# A function that has left a package which is still there.
FUNCTIONS = {"brains.load_encoder": "recipe.load_encoder"}

# A module that is a part of the encoder now, and what to write, by the Brain.
PARTS = {
    "brainquant.brains.BestRQBrain": (
        "front_end",
        "encoder: !new:brainquant.models.BestRQEncoder with compute_features:, normalize:, "
        "front_end:, transformer: and stack:, then modules: {quantiser, encoder, head}, as in "
        "recipes/TEMPLATE/hparams/best_rq.yaml",
    ),
    "brainquant.brains.Wav2Vec2Brain": (
        "extractor",
        "encoder: !new:brainquant.models.Wav2Vec2Encoder with extractor:, transformer: (the old "
        "encoder), sample_rate: and normalise_targets:, then modules: {encoder, quantiser, "
        "target_proj, context_proj}, as in recipes/ToySpeech/hparams/wav2vec2.yaml",
    ),
}

OLD = {*MODULES, *FUNCTIONS}


def refuse_old_modules(brain: str, modules: Collection[str]) -> None:
    """Raises a ValueError if ``modules:`` of a YAML has the parts of an encoder one by one.

    Arguments
    ---------
    brain : str
        The tag of ``brain_class:``.
    modules : collection of str
        Names of the modules.

    Example
    -------
    >>> refuse_old_modules("!name:brainquant.brains.BestRQBrain", ["quantiser", "encoder", "head"])
    """
    part, remedy = PARTS.get(brain.removeprefix("!name:"), ("", ""))
    if part in modules:
        raise ValueError(f"modules: {part} is a part of the encoder now; write {remedy}")


def new_address(address: str) -> str | None:
    """The address of today that stands for an old one; None if the address is not an old one.

    Example
    -------
    >>> new_address("brainquant.training.tensorboard.TensorboardLogger")
    'brainquant.monitoring.tensorboard.TensorboardLogger'
    >>> new_address("brainquant.losses")
    """
    package, _, name = address.partition(".")
    if package != "brainquant":
        return None
    if name in FUNCTIONS:
        return f"brainquant.{FUNCTIONS[name]}"
    module, attribute = name, ""
    while module and module not in MODULES:
        module, _, last = module.rpartition(".")
        attribute = f".{last}{attribute}"
    return f"brainquant.{_home(module, attribute[1:])}{attribute}" if module else None


def _home(module: str, name: str) -> str:
    first, *others = MODULES[module]
    for other in others:
        found = getattr(importlib.import_module(f"brainquant.{other}"), name, None)
        if getattr(found, "__module__", None) == f"brainquant.{other}":
            return other
    return first


class OldModule(types.ModuleType):
    """A module that is no more: its names are those of the modules that have its content now."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        home = _home(self.__name__.removeprefix("brainquant."), name)
        return getattr(importlib.import_module(f"brainquant.{home}"), name)


class OldAddresses(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules and functions at their old addresses."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of an old module; None for all others."""
        if new_address(fullname) is None or fullname[len("brainquant.") :] not in OLD:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> OldModule:
        """The module at the old address."""
        return OldModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Warns that the address is an old one; puts a function in the place of the module."""
        function = FUNCTIONS.get(module.__name__.removeprefix("brainquant."))
        if function is not None:
            home, _, name = function.rpartition(".")
            found = getattr(importlib.import_module(f"brainquant.{home}"), name)
            sys.modules[module.__name__] = found
        warnings.warn(
            f"{module.__name__} is {new_address(module.__name__)} now; {UNTIL}",
            DeprecationWarning,
            stacklevel=2,
        )


def install() -> None:
    """Has Python find modules at their old addresses."""
    if not any(isinstance(finder, OldAddresses) for finder in sys.meta_path):
        sys.meta_path.append(OldAddresses())
