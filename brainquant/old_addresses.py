"""Old addresses of modules and functions work for one version, with a DeprecationWarning.

They stand in YAMLs, as ``!new:brainquant.features.Wav2Vec2Extractor``. ``brainquant/__init__.py``
installs the finder below, which Python asks for modules that do not exist.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Sequence

UNTIL = "the old address works up to version 0.1"

# The new modules of an old one; of several, the first that has a name.
MODULES: dict[str, tuple[str, ...]] = {
    "features": ("models.features",),
    "encoders": ("models.layers",),
    "quick_layers": ("models.quick",),
    "monitors": ("monitoring.counts",),
    "plots": ("monitoring.report",),
    "brains.base": ("brains.pretrain",),
    "brains.speech_encoder": ("models.speech_encoder",),
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
    module, attribute = name, ""
    while module and module not in MODULES:
        module, _, last = module.rpartition(".")
        attribute = f".{last}{attribute}"
    return f"brainquant.{_home(module, attribute[1:])}{attribute}" if module else None


def _home(module: str, name: str) -> str:
    first, *others = MODULES[module]
    for other in others:
        if hasattr(importlib.import_module(f"brainquant.{other}"), name):
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
    """Finds the modules of ``MODULES`` at their old addresses."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of an old module; None for all others."""
        if fullname.removeprefix("brainquant.") not in MODULES or "." not in fullname:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> OldModule:
        """The module at the old address."""
        return OldModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Warns that the address is an old one."""
        warnings.warn(
            f"{module.__name__} is {new_address(module.__name__)} now; {UNTIL}",
            DeprecationWarning,
            stacklevel=2,
        )


def install() -> None:
    """Has Python find modules at their old addresses."""
    if not any(isinstance(finder, OldAddresses) for finder in sys.meta_path):
        sys.meta_path.append(OldAddresses())
