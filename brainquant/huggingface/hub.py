"""Models of the Hugging Face Hub: a name such as ``user/name`` becomes a local folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from ..functional.imports import import_late

# The files of an exported folder. Nothing else of it is downloaded or uploaded.
FILES = ("config.json", "model.safetensors", "README.md", "hyperparams.yaml", "report.png")
OF_TRANSFORMERS = (*FILES, "preprocessor_config.json")
ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_id(source: str) -> bool:
    """Whether a text has the form of a Hub id, ``user/name``.

    Example
    -------
    >>> is_hub_id("somebody/best-rq"), is_hub_id("./best-rq"), is_hub_id("results/a/b")
    (True, False, False)
    """
    if not ID.fullmatch(source) or "--" in source or ".." in source:
        return False
    return all(len(part) <= 96 and part[-1] not in "-." for part in source.split("/"))


def download(
    source: str,
    revision: str | None = None,
    *,
    files: Sequence[str] = FILES,
    needed: Sequence[str] = FILES[:2],
) -> str:
    """Downloads the model of a Hub id, and gives the folder that has it.

    The files go into the cache of huggingface_hub, so a file is downloaded once. Without a
    connection, and with ``HF_HUB_OFFLINE=1``, the files of the cache are used.

    Arguments
    ---------
    source : str
        A Hub id, ``user/name``. A path of a local folder needs no network: do not call this.
    revision : str or None
        Branch, tag or commit. None takes the branch ``main``.
    files : sequence of str
        Names and patterns of the files to download. By default those of an exported folder.
    needed : sequence of str
        Names of those without which it is no such model.

    Returns
    -------
    folder : str

    Raises
    ------
    ValueError
        If ``source`` is no Hub id, if the Hub has no such model or revision, if the model is
        private or gated and the login of this machine may not read it, or if the Hub cannot be
        reached and the cache does not have the model.
    ImportError
        If huggingface_hub is not installed.
    """
    if not is_hub_id(source):
        raise ValueError(
            f"there is no folder {source}, and it is no Hub id, which is user/name; give the "
            f"folder of a run or of an exported model, or a Hub id"
        )
    library = import_library()
    with one_line(library, source, revision):
        folder = library.snapshot_download(source, revision=revision, allow_patterns=[*files])
    for name in needed:
        if not os.path.isfile(os.path.join(folder, name)):
            raise ValueError(
                f"{source} on {library.constants.ENDPOINT} has no {name}, so it is no model that "
                f"can be loaded; brainquant push uploads one"
            )
    return folder


def import_library() -> ModuleType:
    """Imports huggingface_hub; the error says which extra to install."""
    try:
        for name in ("huggingface_hub.constants", "huggingface_hub.errors"):
            import_late(name)
        return import_late("huggingface_hub")
    except ImportError as error:
        raise ImportError(
            f"models of the Hugging Face Hub need huggingface_hub ({error}): "
            f'pip install "brainquant[hub]"'
        ) from error


@contextmanager
def one_line(library: ModuleType, name: str, revision: str | None = None) -> Iterator[None]:
    """Turns an error of huggingface_hub into a ValueError of one line.

    The errors themselves have URLs and headers of requests, so they are not shown.

    Arguments
    ---------
    library : module
        huggingface_hub.
    name : str
        The Hub id that is read or written.
    revision : str or None
        The branch, tag or commit.
    """
    errors = library.errors
    hub = library.constants.ENDPOINT
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    offline = "HF_HUB_OFFLINE is set; unset it"
    try:
        yield
        return
    except errors.GatedRepoError:
        line = f"{name} is gated: accept its terms on {hub}/{name}, and {log_in}"
    except errors.RepositoryNotFoundError:
        line = (
            f"there is no folder {name}, and no model {name} on {hub}, or it is private; correct "
            f"the name, or {log_in}"
        )
    except errors.RevisionNotFoundError:
        line = f"{name} on {hub} has no revision {revision}; give a branch, tag or commit of it"
    except errors.LocalEntryNotFoundError:
        why = offline if library.constants.HF_HUB_OFFLINE else f"{hub} does not answer; try later"
        revised = f"revision {revision} of {name}" if revision else name
        line = f"{revised} is no folder and not in {library.constants.HF_HUB_CACHE}, and {why}"
    except errors.OfflineModeIsEnabled:
        line = f"{name} needs {hub}, but {offline}"
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        why = " ".join(str(error.server_message or "").split())[:200]
        what = f"{hub} refuses {name} with HTTP {status}" + (f" ({why})" if why else "")
        line = f"{what}; {log_in}" if status in (401, 403) else f"{what}; try again later"
    except ValueError as error:  # such as the front matter of a model card that the Hub refuses
        line = " ".join(str(error).split())
    except (errors.HTTPError, OSError, RuntimeError) as error:
        if getattr(error, "errno", None):  # of this machine's files
            line = f"{name}: {error}; make room or give another folder in HF_HUB_CACHE"
        else:
            line = f"{name}: {hub} does not answer ({type(error).__name__}); try again later"
    raise ValueError(line) from None
