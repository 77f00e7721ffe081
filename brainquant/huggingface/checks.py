"""One clear line for each model of transformers that cannot be continued."""

from __future__ import annotations

import os
import pickle
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

from .library import import_transformers

logger = get_logger(__name__)

MASK_VECTOR = "masked_spec_embed"  # what masked frames become
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # or an index of several such files
# Names of weights by the number of which an encoder has more than its config says.
NUMBERED = re.compile(r"(?:^|\.)(encoder\.layers|conv_layers)\.\d+\.")
# Numbers of parts, each of which is built before the weights show that there are fewer
PARTS = ("num_hidden_layers", "num_adapter_layers", "num_feat_extract_layers")
MOST_PARTS = 1000


@contextmanager
def one_line_without_warnings(folder: str) -> Iterator[None]:
    """Keeps transformers quiet, and turns its errors into a ValueError of one line.

    transformers has many kinds of errors for broken files. It reports weights that are missing or
    of other sizes in tables of warnings; ``check_weights`` says in one line what matters.

    Arguments
    ---------
    folder : str
        What is loaded, for errors.

    Raises
    ------
    ValueError
        If something inside fails, other than for want of memory.

    Example
    -------
    >>> with one_line_without_warnings("models/base"):  # doctest: +ELLIPSIS
    ...     raise KeyError("gelu_9")
    Traceback (most recent call last):
    ValueError: model: models/base cannot be loaded (KeyError: 'gelu_9'); correct its ...
    """
    logging = import_transformers().utils.logging
    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"model: the weights of {folder} are a pickle that holds more than tensors or is "
            f"damaged; a pickle can execute anything, so it is not read: take a model with "
            f"model.safetensors"
        ) from error
    except Exception as error:
        kind = type(error).__name__
        reason = textwrap.shorten(f"{kind}: {error}", 240, placeholder=" ...")
        if isinstance(error, (EOFError, OSError)) or kind == "SafetensorError":
            line = f"model: the weights of {folder} cannot be read ({reason}); download it again"
        else:
            line = f"model: {folder} cannot be loaded ({reason}); correct its config.json"
        raise ValueError(f"{line}, or take another model") from error
    finally:
        logging.set_verbosity(verbosity)
        if shows_bars:
            logging.enable_progress_bar()


def check_files(folder: str) -> None:
    """Raises a ValueError if a folder of transformers has no weights that torch reads.

    Example
    -------
    >>> check_files(getfixture("tmp_path"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: model: ... has no weights, neither model.safetensors nor pytorch_model.bin; ...
    """
    names = [*WEIGHTS, *(f"{name}.index.json" for name in WEIGHTS)]
    if not any(os.path.isfile(os.path.join(folder, name)) for name in names):
        raise ValueError(
            f"model: {folder} has no weights, neither {' nor '.join(WEIGHTS)}; download the model "
            f"again, with all its files"
        )


def check_content(content: Mapping[str, Any], folder: str) -> None:
    """Raises a ValueError if a ``config.json`` asks for an endless model, or for packed weights.

    Arguments
    ---------
    content : Mapping
        Of the file, before transformers builds anything of it.
    folder : str
        Where it is, for errors.

    Example
    -------
    >>> check_content({"model_type": "hubert", "num_hidden_layers": 12}, "models/hubert")
    >>> check_content({"num_hidden_layers": 10**9}, "x")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: model: num_hidden_layers in the config.json of x must be from 0 to 1000, got 1000...
    """
    if content.get("quantization_config"):
        raise ValueError(
            f"model: {folder} has quantised weights (quantization_config in config.json), and only "
            f"floats are read; take the model as it was before"
        )
    for key in PARTS:
        number = content.get(key, 0)
        if type(number) is not int or not 0 <= number <= MOST_PARTS:
            raise ValueError(
                f"model: {key} in the config.json of {folder} must be from 0 to {MOST_PARTS}, got "
                f"{str(number):.30}; download it again, or take another model"
            )


def check_config(config: Any, folder: str, pretraining: bool) -> None:
    """Raises a ValueError if the config of a model has what would not be trained."""
    if pretraining and getattr(config, "add_adapter", False):
        raise ValueError(
            f"model: {folder} has an adapter above its encoder (add_adapter in config.json), as "
            f"after fine-tuning, which wav2vec 2.0 cannot train; continue it with "
            f"continue_masked.yaml"
        )


def check_weights(model: Any, found: Mapping[str, Any], folder: str, pretraining: bool) -> None:
    """Raises a ValueError if the weights of a model are not those of its config, or not finite.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        The model that was loaded.
    found : dict
        transformers' ``loading_info``.
    folder : str
        Where it was loaded from, for errors.
    pretraining : bool
        Whether it has to have the heads of wav2vec 2.0.
    """
    for name, there, here in sorted(found["mismatched_keys"]):
        sizes = (" x ".join(map(str, shape)) for shape in (there, here))
        raise ValueError(
            "model: the weights of {} do not fit its config.json: {} is {} in the weights, and {} "
            "by the config; download the model again".format(folder, name, *sizes)
        )
    missing = sorted(found["missing_keys"])
    if not pretraining and MASK_VECTOR in missing:
        missing.remove(MASK_VECTOR)
        # A warning: the log of the run is not there yet, and would not show anything below.
        logger.warning(
            f"model: {folder} has no vector for masked frames ({MASK_VECTOR}): it is drawn anew"
        )
    if pretraining and any(name.startswith("quantizer.") for name in missing):
        raise ValueError(
            f"model: {folder} has no quantiser, as after fine-tuning, so wav2vec 2.0 would "
            f"begin with new codes; continue it with continue_masked.yaml"
        )
    if missing:
        raise ValueError(
            f"model: {folder} lacks {len(missing)} of the weights of "
            f"{type(model).__name__}, such as {missing[0]}; download it again"
        )
    if more := sorted(filter(NUMBERED.search, found["unexpected_keys"])):
        raise ValueError(
            f"model: {folder} has more layers than its config.json says, such as "
            f"{more[0]}; download the model again"
        )
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(
                f"model: {name} in {folder} has NaN or infinite values; the model is broken, take "
                f"another one"
            )
