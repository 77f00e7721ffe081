"""How well labels of speakers who are new are read from encoders: each speaker is new in turn."""

import csv
import os

import numpy as np
import torch

from brainquant.data.alignments import find_alignments, read_alignment
from brainquant.evaluation import probe_layers
from brainquant.evaluation.abx import abx_errors, spoken_phones
from brainquant.evaluation.frozen import encode, log_mel_frames, log_mel_windows
from brainquant.evaluation.utterances import load_utterances

CONTEXT = 1  # frames on both sides, for phones


@torch.no_grad()
def front_end_frames(encoder, sig):
    """Outputs of the front end for one waveform, shape (frames, dim)."""
    feats_BTF, _ = encoder.eval().features(sig[None], torch.tensor([len(sig)]))
    return encoder.steps(feats_BTF)[0].numpy()


class SpeakersProbe:
    """A manifest whose speakers take turns: one tests, the next chooses the layer, the rest train.

    Arguments
    ---------
    encoder : SpeechEncoder
        Tells the frames of the encoders.
    manifest : str
        CSV file with a column ``spk_id``.
    of : str
        A column of it, read from means over time, or a folder of phone alignments, frame by frame.
    data_folder : str
        What ``$data_root`` in the manifest stands for.
    seed : int
        Draws two thirds of the training utterances.
    """

    def __init__(self, encoder, manifest, of, data_folder, seed):
        self.phones = os.path.isdir(of)
        self.alignments = find_alignments(of) if self.phones else {}
        labels = {"alignments": self.alignments} if self.phones else {"label": of}
        self.utterances, _ = load_utterances(manifest, data_folder, encoder, **labels)
        with open(manifest, encoding="utf-8", newline="") as file:
            speaker_of = {row["ID"]: row["spk_id"] for row in csv.DictReader(file)}
        self.speakers = np.array([speaker_of[utterance.id] for utterance in self.utterances])
        self.encoder, self.seed = encoder, seed

    def accuracies(self, represent, context=0):
        """By speaker, by layer: accuracy on the speaker who chooses the layer, and on this one.

        Arguments
        ---------
        represent : callable
            Makes of an utterance a list of layers, arrays (frames, dim).
        context : int
            Frames on both sides that the classifier of phones sees.
        """
        layers = [list(layer) for layer in zip(*map(represent, self.utterances))]
        if not self.phones:
            layers = [[x_TD.mean(0, keepdims=True) for x_TD in layer] for layer in layers]
        names, by_speaker = sorted(set(self.speakers)), {}
        for name, choosing in zip(names, names[1:] + names[:1]):
            test, valid = self.speakers == name, self.speakers == choosing
            splits = {"train": ~test & ~valid, "valid": valid, "test": test}
            splits = {split: np.flatnonzero(chosen) for split, chosen in splits.items()}
            by_speaker[name] = probe_layers(
                {
                    s: [[layer[i] for i in chosen] for layer in layers]
                    for s, chosen in splits.items()
                },
                {s: [self.utterances[i].labels for i in chosen] for s, chosen in splits.items()},
                seed=self.seed,
                context=context if self.phones else 0,
            )
        return by_speaker

    def of_encoder(self, encoder):
        """Accuracies of all layers of an encoder."""
        return self.accuracies(lambda utterance: self._layers(encoder, utterance), CONTEXT)

    def abx(self, encoder):
        """ABX errors of the phones, within and across speakers, for each layer of an encoder."""
        alignments = [read_alignment(self.alignments[u.id]) for u in self.utterances]
        phones = spoken_phones(alignments, self.speakers.tolist())
        by_layer = zip(*(self._layers(encoder, utterance) for utterance in self.utterances))
        return [abx_errors(layer, phones, self.encoder.frame_times) for layer in by_layer]

    @staticmethod
    def _layers(encoder, utterance):
        return [layer[: utterance.num_frames] for layer in encode(encoder, utterance.sig)]

    def of_front_end(self, encoder):
        """Accuracies of what the Transformer of a BestRQEncoder reads, as a single layer."""

        def frames(utterance):
            return [front_end_frames(encoder, utterance.sig)[: utterance.num_frames]]

        return self.accuracies(frames, CONTEXT)

    def of_log_mel(self):
        """Accuracies of log-mel over the same stretches of time."""
        rate = self.encoder.sample_rate

        def frames(utterance):
            if not self.phones:
                return [log_mel_frames(utterance.sig, rate)]
            times = self.encoder.frame_times(utterance.num_frames)
            return [log_mel_windows(utterance.sig, rate, times, CONTEXT)]

        return self.accuracies(frames)
