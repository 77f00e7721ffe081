"""Clips of tones, for tests of features and extractors."""

import torch


def clips(*lengths):
    """Tones with noise, some of them quiet."""
    generator = torch.Generator().manual_seed(0)
    for index, length in enumerate(lengths):
        tone = torch.sin(torch.arange(length) * (0.05 + 0.04 * index))
        noise = torch.randn(length, generator=generator)
        yield 10.0**-index * (tone + 0.3 * noise)


def batched(wavs):
    return torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), torch.tensor([*map(len, wavs)])
