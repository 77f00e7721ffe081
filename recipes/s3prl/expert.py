"""An upstream of s3prl: the layers of an encoder that brainquant has trained."""

import torch
from torch.nn.utils.rnn import pad_sequence

from brainquant import load_pretrained

SAMPLE_RATE = 16000  # s3prl knows no other


class UpstreamExpert(torch.nn.Module):
    """What s3prl calls for features.

    Arguments
    ---------
    ckpt : str
        A folder of a run or of ``brainquant export``, or a Hub id.
    model_config : None
        Not used: the folder describes its model.
    revision : str or None
        Branch, tag or commit of a Hub id (``extra_conf`` in ``S3PRLUpstream``).
    **kwargs : Any
        What s3prl gives to every upstream, such as ``refresh``.

    Raises
    ------
    ValueError
        If there is no such model, or if it was not trained on audio of 16 kHz.
    """

    def __init__(self, ckpt, model_config=None, *, revision=None, **kwargs):
        super().__init__()
        if model_config is not None:
            raise ValueError(
                f"model_config is not used, got {model_config}; leave out -g: the folder of the "
                f"model describes it"
            )
        self.encoder = load_pretrained(ckpt, revision=revision)
        if (rate := self.encoder.sample_rate) != SAMPLE_RATE:
            raise ValueError(
                f"{ckpt} was trained on audio of {rate} Hz, but s3prl gives {SAMPLE_RATE} Hz; "
                f"pretrain with sample_rate: {SAMPLE_RATE}"
            )
        self.encoder.quantiser = None  # layers need none
        self.encoder.encoder.prepare_finetuning()  # s3prl may train it

    def get_downsample_rates(self, key):
        """Samples from one frame to the next, the same for every key and layer."""
        return self.encoder.encoder.stride

    def forward(self, wavs):
        """Outputs of the layers, from the lowest to the last.

        Arguments
        ---------
        wavs : list of torch.Tensor
            One-dimensional, at 16 kHz.

        Returns
        -------
        features : dict
            ``hidden_states``, a tensor (batch, frames, dim) for each layer, and
            ``last_hidden_state``, the last of them. A clip of n samples has ceil(n / rate) frames,
            as s3prl counts them: if the model has fewer, its last one is repeated.
        """
        lengths = torch.tensor([len(wav) for wav in wavs])
        layers = range(1, self.encoder.num_layers + 1)
        states, frames = self.encoder(pad_sequence(wavs, batch_first=True), lengths, layers=layers)
        counted = torch.arange(-(-int(lengths.max()) // self.encoder.encoder.stride))
        shown = counted.to(frames.device).minimum(frames[:, None] - 1).clamp(min=0)
        clips = torch.arange(len(wavs))[:, None]
        states = [state[clips, shown] for state in states]
        return {"hidden_states": states, "last_hidden_state": states[-1]}
