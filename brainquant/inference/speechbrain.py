"""Trained encoders for SpeechBrain's own interfaces and recipes.

Shape suffixes: B batch, L samples, T encoder frames, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.fetching import FetchConfig, LocalStrategy, fetch
from speechbrain.utils.parameter_transfer import Pretrainer
from typing_extensions import Self, override

from ..huggingface.folder import is_held_model
from ..huggingface.source import PREPROCESSOR
from .folder import CONFIG, WEIGHTS
from .loading import load_pretrained, open_data
from .pretrained import PretrainedEncoder

YAML = """\
# For SpeechBrain: speechbrain.inference.WaveformEncoder.from_hparams(source=<this folder>)
# A YAML file is code. brainquant.load_pretrained(<this folder>) runs no code of the folder.
encoder: !new:brainquant.inference.speechbrain.ExportedEncoder
modules:
   encoder: !ref <encoder>
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
   sample_rate: {sample_rate}
pretrainer: !new:brainquant.inference.speechbrain.FolderPretrainer
   loadables:
      encoder: !ref <encoder>
"""


def hyperparams_yaml(config: Mapping[str, Any]) -> str:
    """The ``hyperparams.yaml`` of an exported folder.

    It states no architecture: that is in ``config.json``, which is read with the weights.

    Arguments
    ---------
    config : Mapping
        The content of ``config.json``.

    Example
    -------
    >>> print(hyperparams_yaml({"sample_rate": 16000}).splitlines()[2])
    encoder: !new:brainquant.inference.speechbrain.ExportedEncoder
    """
    return YAML.format(sample_rate=int(config["sample_rate"]))


def count_samples(wavs_BL: torch.Tensor, wav_lens_B: torch.Tensor | None) -> torch.Tensor | None:
    """Samples of each clip, from SpeechBrain's lengths: shares of the longest.

    Example
    -------
    >>> count_samples(torch.zeros(2, 48000), torch.tensor([1.0, 31999 / 48000]))
    tensor([48000, 31999])
    """
    if wav_lens_B is None:
        return None
    num_samples = wavs_BL.shape[1]
    return (wav_lens_B.double() * num_samples).round().long().clamp(0, num_samples)


class ExportedEncoder(torch.nn.Module):
    """The encoder of an exported folder, for ``WaveformEncoder`` of SpeechBrain.

    The ``hyperparams.yaml`` of the folder makes it empty, and ``FolderPretrainer`` fills it.

    Attributes
    ----------
    model : PretrainedEncoder or None
        What ``load_pretrained`` gives: its codes, sizes and times.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model: PretrainedEncoder | None = None

    def load(self, folder: str | Path) -> None:
        """Opens an exported folder, without trust, as ``load_pretrained`` does."""
        self.model = open_data(folder)
        self.model.encoder.prepare_finetuning()  # from_hparams(freeze_params=False) may train it

    @override
    def forward(
        self, wavs_BL: torch.Tensor, wav_lens_B: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Hidden states of the last layer.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms at the sample rate of the model, shape (batch, samples).
        wav_lens_B : torch.Tensor or None
            Shares of the longest clip. None: all are whole.

        Returns
        -------
        encoded : dict
            ``embeddings`` (batch, frames, dim), with zeros after the end of each clip, and
            ``frames``, the valid frames of each.
        """
        if self.model is None:
            raise ValueError(
                "this encoder has no weights yet; open its folder with "
                "speechbrain.inference.WaveformEncoder.from_hparams"
            )
        hidden_BTD, frames_B = self.model(wavs_BL, count_samples(wavs_BL, wav_lens_B))
        return {"embeddings": hidden_BTD, "frames": frames_B}


class FolderPretrainer(Pretrainer):
    """Fills an ``ExportedEncoder`` from the files of an exported folder.

    SpeechBrain's own knows pickles only, with the names of the modules. This one fetches
    ``config.json`` and ``model.safetensors``, and ``preprocessor_config.json`` of a model of
    transformers, from a folder or from the Hub.
    """

    folder: Path | None = None

    @override
    def collect_files(
        self,
        default_source: Any = None,
        local_strategy: LocalStrategy = LocalStrategy.SYMLINK,
        fetch_config: FetchConfig = FetchConfig(),  # noqa: B008, as in the base class
    ) -> dict[str, Path]:
        """Fetches the files; arguments and result are those of the base class."""
        if default_source is None:
            raise ValueError("default_source must be an exported folder or a Hub id, got None")

        def fetched(name: str) -> Path:
            return Path(
                fetch(
                    filename=name,
                    source=default_source,
                    savedir=self.collect_in,
                    local_strategy=local_strategy,
                    fetch_config=fetch_config,
                )
            )

        self.folder, weights = fetched(CONFIG).parent, fetched(WEIGHTS)
        if is_held_model(self.folder):
            fetched(PREPROCESSOR)
        return {name: weights for name in self.loadables}

    @override
    def load_collected(self) -> None:
        """Opens what ``collect_files`` has fetched."""
        if self.folder is None:
            raise ValueError("there are no files yet; call collect_files first")
        for encoder in self.loadables.values():
            encoder.load(self.folder)


class SSLEncoder(torch.nn.Module):
    """A trained encoder in the place of ``speechbrain.integrations.huggingface.wav2vec2.Wav2Vec2``.

    The recipes of SpeechBrain that fine-tune wav2vec 2.0 or WavLM take it with no change but in
    their YAML. Its outputs have a norm as their last step, so it needs no ``output_norm``.

    Arguments
    ---------
    source : str
        What ``load_pretrained`` opens: an exported folder, the folder of a run, or a Hub id.
    freeze : bool
        Whether it stays as it is: no gradients and no dropout.
    revision : str or None
        Branch, tag or commit of a Hub id.
    """

    def __init__(self, source: str, *, freeze: bool = False, revision: str | None = None) -> None:
        super().__init__()
        self.freeze = freeze
        self.model = load_pretrained(source, revision=revision)
        self.model.quantiser = None  # nothing trains it, and DistributedDataParallel would wait
        self.model.encoder.prepare_finetuning()
        if freeze:
            self.requires_grad_(False)
        self.train()

    @property
    def dim(self) -> int:
        """Size of the outputs."""
        return self.model.dim

    @override
    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.freeze)

    @override
    def forward(
        self, wavs_BL: torch.Tensor, wav_lens_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Outputs of the last layer, shape (batch, frames, dim); arguments as SpeechBrain's."""
        return self.model(wavs_BL, count_samples(wavs_BL, wav_lens_B)).hidden
