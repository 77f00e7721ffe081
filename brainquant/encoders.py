"""Encoders that SpeechBrain has the parts of, and no module for pretraining."""

from speechbrain import Stage
from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper


class DynamicChunkEncoder(EncoderWrapper):
    """A Transformer encoder that learns to see chunks of the audio, as a streaming one has to.

    In training each batch has chunks of another size, and some have the whole utterance
    (https://arxiv.org/abs/2012.05481), so that one encoder serves at any latency. Otherwise it
    is SpeechBrain's ``EncoderWrapper``, ``state_dict`` included, and what SpeechBrain streams
    with, ``forward_streaming``, is there.

    Arguments
    ---------
    transformer : speechbrain.lobes.models.transformer.TransformerASR.TransformerASR
        A conformer that is not causal.
    sampler : callable
        Gives the chunks for a ``speechbrain.Stage``, or None for the whole utterance: SpeechBrain's
        ``DynChunkTrainConfigRandomSampler``. Its draws are from torch's global generator.

    Example
    -------
    >>> import torch
    >>> from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
    >>> from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig
    >>> transformer = TransformerASR(
    ...     tgt_vocab=1, input_size=8, d_model=8, nhead=2, num_encoder_layers=1,
    ...     num_decoder_layers=0, d_ffn=8, encoder_module="conformer", causal=False,
    ...     attention_type="RelPosMHAXL", positional_encoding=None, normalize_before=True,
    ... )
    >>> encoder = DynamicChunkEncoder(transformer, lambda stage: DynChunkTrainConfig(4)).eval()
    >>> x = torch.rand(1, 8, 8)
    >>> first = encoder(x)[:, :4]
    >>> x[:, 4:] = 0.0
    >>> bool((encoder(x)[:, :4] == first).all())  # the next chunk is not seen
    True
    """

    def __init__(self, transformer, sampler):
        super().__init__(transformer)
        self.sampler = sampler

    def forward(self, x, wav_lens=None, pad_idx=0):
        """Outputs for inputs of shape (batch, frames, input size), in chunks as the stage has them.

        Arguments
        ---------
        x : torch.Tensor
            Inputs.
        wav_lens : torch.Tensor or None
            Lengths as shares of the frames, shape (batch,).
        pad_idx : int
            As in SpeechBrain.

        Returns
        -------
        outputs : torch.Tensor
            Shape (batch, frames, dim).
        """
        chunks = self.sampler(Stage.TRAIN if self.training else Stage.VALID)
        return super().forward(x, wav_lens, pad_idx, dynchunktrain_config=chunks)
