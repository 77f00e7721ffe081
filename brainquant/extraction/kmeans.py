"""Fits a k-means to a layer of any trained encoder, on any corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from speechbrain.utils.logger import get_logger

from ..data.audio import AudioReader
from ..fitting import Frames, check_layer, check_sizes, describe_frames, fit_centroids
from ..functional.safe_bytes import safetensors_bytes
from ..inference import PretrainedEncoder, load_pretrained
from .compute import encode_batch, read_unless_long
from .corpus import Corpus, find_source, read_corpus
from .plan import make_plan
from .reading import ReadAhead
from .results import Features

logger = get_logger(__name__)

BATCH_SECONDS = 20.0
NUM_THREADS = 2  # that read audio


def fit_model(
    model: str,
    source: str,
    *,
    layer: int,
    clusters: int,
    num_frames: int,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[bytes, str]:
    """Centroids of a layer of a trained encoder, for ``PretrainedEncoder.add_kmeans``.

    Arguments
    ---------
    model : str
        For ``load_pretrained``.
    source : str
        An audio file, a folder or a manifest.
    layer : int
        0 for the quantiser's inputs, k for the outputs of layer k.
    clusters : int
        Number of centroids.
    num_frames : int
        Frames to fit on, in as many passes over the corpus as needed.
    seed : int
        Decides the order of the audio and the first centroids.
    device : str
        Where the encoder computes.

    Returns
    -------
    content : bytes
        A .safetensors with ``centroids``. Its metadata say the layer, the fingerprint of the
        model, its frames per second, and the number of frames.
    summary : str
        How well the centroids fit the second half of the frames.

    Raises
    ------
    ValueError
        If model or source cannot be read, if there is no such layer, or too little audio.
    """
    check_sizes(clusters, num_frames)
    if device != "cpu":
        from ..training.device_options import check_device

        check_device({"device": device})
    encoder = load_pretrained(model, device=device)
    check_layer(encoder.encoder, layer)
    corpus = read_corpus(source, find_source(source), encoder.sample_rate, encoder.min_samples)
    frames = corpus_frames(encoder, corpus, layer, source, seed)
    tensors, summary = fit_centroids(frames, clusters=clusters, num_frames=num_frames, seed=seed)
    metadata = describe_frames(encoder.encoder, layer, num_frames, encoder.fingerprint())
    return safetensors_bytes(tensors, metadata), summary


def corpus_frames(
    encoder: PretrainedEncoder, corpus: Corpus, layer: int, source: str, seed: int
) -> Frames:
    """The hidden states of a layer over a corpus, as ``brainquant encode`` writes them.

    Each pass over it has another order. Clips of similar lengths are in one batch.
    """
    plan = make_plan(corpus.clips, BATCH_SECONDS, bytes_per_second=1)
    reader = AudioReader(encoder.sample_rate, resample=True, mix_down="mean")
    features = Features([layer])
    (name,) = features.names()
    for left_out in corpus.left_out:
        logger.warning(f"{left_out.path} left out: {left_out.reason}")

    def batches(number: int) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        order = np.random.default_rng([seed, number]).permutation(len(plan.batches))
        clips = [[corpus.clips[n] for n in plan.batches[batch]] for batch in order]
        read = ReadAhead(
            lambda clip: read_unless_long(reader, clip), clips, num_workers=NUM_THREADS
        )
        for batch, of_batch in zip(clips, read):
            encoded: list[tuple[str, np.ndarray]] = []
            for clip, found in zip(batch, encode_batch(features, encoder, batch, of_batch)):
                if not isinstance(found, str):
                    encoded.append((clip.id, found[1][name]))
                elif number == 1:
                    logger.warning(f"clip {clip.id!r} left out: {found}")
            if encoded:
                ids, arrays = zip(*encoded)
                yield ids, np.concatenate(arrays)

    return Frames(batches, layer, source)
