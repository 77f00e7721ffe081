"""Fine-tuning of a pretrained encoder on characters, with connectionist temporal classification.

Shape suffixes: B batch, L samples, T encoder frames, D dim, V characters and the blank, U
characters of an utterance.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain import Stage
from speechbrain.dataio.encoder import CTCTextEncoder
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.nnet.losses import ctc_loss
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from ..data.batches import make_loaders
from ..errors import RunError
from ..functional.transfer import to_device
from ..masking import span_mask
from ..models.quick import quicken
from ..monitoring.error_tally import ErrorTally
from ..own_files import refuse_link
from ..ranks import on_main_process
from ..training.brain import RunBrain
from ..training.keys import CTC
from ..training.layer_rates import check_weight_decay, layer_groups
from ..training.randomness import derived_generator

BLANK = 0  # its index among the characters


class CTCBrain(RunBrain):
    """Trains an encoder and a head to write the spoken words (Graves et al., ICML 2006).

    The loss is the negative log-likelihood per character, in nats. A clip with more characters
    than the encoder has frames has no alignment: the loss leaves it out, and the log counts it as
    ``clips_too_short``. Validation decodes greedily. The checkpoint with the lowest word error
    rate reads the test manifests. The characters are those of the training transcripts.

    Modules: ``encoder`` (a ``SpeechEncoder``), ``head`` (a score for the blank and for each
    character).
    Hyperparameters: ``lr`` of the last layer, ``layer_decay`` (factor from a layer to the one
    below), ``lr_head``; ``freeze_steps`` (the first steps, which train only the head);
    ``mask_ratio`` and ``mask_length`` (training silences spans of the waveform, in units of 10 ms).
    """

    hparams_read = RunBrain.hparams_read | CTC
    columns = ("wrd",)  # of the manifests, besides the audio

    tally: ErrorTally

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.hparams.quick_layers:
            quicken(self.modules)
        self.check_hparams()

    @override
    def make_tally(self) -> ErrorTally:
        """Counts errors of words and characters."""
        return ErrorTally(sample_rate=self.hparams.sample_rate, device=self.device)

    def check_hparams(self) -> None:
        """Raises a ValueError that names the key of the YAML that is wrong."""
        rate, expected = self.hparams.sample_rate, self.raw("encoder").sample_rate
        if rate != expected:
            raise ValueError(
                f"sample_rate is {rate}, but the encoder was pretrained on {expected} Hz; set "
                f"sample_rate: {expected} and, if the files have another one, resample: True"
            )
        check_weight_decay(self.remove_vector_weight_decay)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip that makes a frame."""
        return self.raw("encoder").min_samples

    # ---- characters ------------------------------------------------------------------------

    @override
    def fit(self, epoch_counter, train_set, valid_set=None, **kwargs):
        """Trains as ``RunBrain.fit`` does, on loaders with the column ``wrd``.

        Writes the characters into ``characters.txt`` of the run's folder.
        """
        texts = (row["wrd"] for row in train_set.dataset.data.values())
        self.alphabet = "".join(sorted(set().union(*texts)))
        self.characters = CTCTextEncoder()
        self.characters.update_from_iterable(self.alphabet, sequence_input=False)
        self.characters.insert_blank(index=BLANK)
        self.unchanging = {"characters": self.alphabet}
        self.check_outputs()
        on_main_process(self.write_characters)
        super().fit(epoch_counter, train_set, valid_set, **kwargs)

    def check_outputs(self) -> None:
        """Raises a RunError if the head has too few outputs for the characters."""
        hidden_BTD = torch.zeros(1, 1, self.raw("encoder").dim, device=self.device)
        outputs, needed = self.modules["head"](hidden_BTD).shape[2], len(self.characters)
        if outputs < needed:
            raise RunError(
                f"head has {outputs} outputs, but there are the blank and the {needed - 1} "
                f"characters of the training transcripts ({self.alphabet!r}); set out_features: "
                f"{needed} of the head in your YAML, or write the transcripts with fewer"
            )

    def write_characters(self) -> None:
        """Writes the characters in SpeechBrain's form."""
        os.makedirs(self.run_log.folder, exist_ok=True)
        path = os.path.join(self.run_log.folder, "characters.txt")
        refuse_link(path)
        self.characters.save(path)

    def encode_text(self, text: str) -> list[int]:
        """The numbers of its characters, without those that the training transcripts lack."""
        numbers = self.characters.lab2ind
        return [numbers[character] for character in text if character in numbers]

    # ---- forward and objective -------------------------------------------------------------

    @override
    def compute_forward(self, batch: Any, stage: Stage) -> Any:
        """Log-probabilities (batch, frames, characters) and the valid frames of each clip."""
        wavs_BL, lengths_B = self.waveforms(batch)
        lengths_B = to_device(lengths_B, wavs_BL.device)
        if stage == Stage.TRAIN and self.hparams.mask_ratio:
            wavs_BL = self.mask(wavs_BL, lengths_B)
        with self.trains_encoder(stage):
            encoded = self.modules["encoder"](wavs_BL, lengths_B)
        log_probs_BTV = self.modules["head"](encoded.hidden_BTD).float().log_softmax(-1)
        return log_probs_BTV, encoded.frames_B, lengths_B

    def mask(self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """Silences spans of the waveforms, other ones for each batch of each epoch."""
        unit = self.hparams.sample_rate // 100
        epoch = self.hparams.epoch_counter.current
        mask_BT = span_mask(
            lengths_B // unit,
            wavs_BL.shape[1] // unit,
            self.hparams.mask_ratio,
            self.hparams.mask_length,
            generator=derived_generator(
                self.device, self.hparams.seed, "mask", epoch, self.batch_number
            ),
        )
        mask_BL = mask_BT.repeat_interleave(unit, dim=1)
        mask_BL = torch.nn.functional.pad(mask_BL, (0, wavs_BL.shape[1] - mask_BL.shape[1]))
        return wavs_BL.masked_fill(mask_BL, 0.0)

    @override
    def compute_objectives(self, predictions: Any, batch: Any, stage: Stage) -> torch.Tensor:
        """Negative log-likelihood per character, in nats."""
        log_probs_BTV, frames_B, lengths_B = predictions
        targets = [self.encode_text(text) for text in batch.wrd]
        # Each character needs a frame, and two equal ones need a blank between them.
        needed = [len(u) + sum(a == b for a, b in zip(u, u[1:])) for u in targets]
        sizes_B = torch.tensor([len(u) for u in targets], device=self.device)
        fits_B = torch.tensor(needed, device=self.device) <= frames_B
        targets_BU = pad_sequence([torch.tensor([*u, BLANK]) for u in targets], batch_first=True)
        loss_B = ctc_loss(
            log_probs_BTV,
            targets_BU.to(self.device),
            frames_B / log_probs_BTV.shape[1],
            sizes_B / targets_BU.shape[1],
            blank_index=BLANK,
            reduction="none",
        )
        # The loss and the gradient of a clip without an alignment are 0.
        loss, characters = loss_B.sum(), (sizes_B * fits_B).sum()
        if not self.batch_is_empty:
            self.tally.observe(
                stage,
                loss=loss,
                characters=characters,
                samples=lengths_B.sum(),
                clips_too_short=(~fits_B).sum(),
            )
            if stage != Stage.TRAIN:
                texts = self.decode(log_probs_BTV, frames_B)
                self.tally.count_errors(batch.id, texts, batch.wrd)
        return loss / characters.clamp(min=1)

    def decode(self, log_probs_BTV: torch.Tensor, frames_B: torch.Tensor) -> list[str]:
        """The texts of the likeliest character in each frame."""
        decoded = ctc_greedy_decode(log_probs_BTV, frames_B / log_probs_BTV.shape[1], BLANK)
        # The head may have more outputs than there are characters; those write nothing.
        names = self.characters.ind2lab
        return ["".join(names.get(number, "") for number in numbers) for numbers in decoded]

    # ---- steps -----------------------------------------------------------------------------

    @override
    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group of parameters for each layer, from the lowest, and one for the head."""
        scale = self.hparams.lr_head / self.hparams.lr
        head = {"params": [*self.modules["head"].parameters()], "lr_scale": scale}
        return [*layer_groups(self.raw("encoder"), self.hparams.layer_decay), head]

    @property
    @override
    def learning_rate(self) -> float:
        """That of the last layer."""
        return self.optimizer.param_groups[-2]["lr"]

    # ---- tests -----------------------------------------------------------------------------

    def test(self, name: str, loader: Any) -> float:
        """Reads audio with the best checkpoint, and writes ``wer_<name>.txt``.

        Arguments
        ---------
        name : str
            Of the test.
        loader : torch.utils.data.DataLoader
            The same batches on every rank.

        Returns
        -------
        word_error_rate : float
            In per cent.

        Raises
        ------
        RunError
            If a clip cannot be read: the error rate would be that of the other clips.
        """
        self.tally.test_name = name
        self.evaluate(loader, min_key="WER")
        return self.tally.wer.summary["WER"]

    @override
    def evaluate_batch(self, batch, stage):
        """As in SpeechBrain, but a test leaves no clip out."""
        if stage == Stage.TEST and batch.left_out:
            clip, reason = batch.left_out[0]
            raise RunError(
                f"clip {clip!r} of the test {self.tally.test_name} cannot be used: {reason}; mend "
                f"it, or take it out of the manifest"
            )
        return super().evaluate_batch(batch, stage)

    @override
    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Also writes the errors of a test."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == Stage.TEST:
            on_main_process(lambda: self.tally.write_errors(self.run_log.folder))


def write_error_rates(
    brain: CTCBrain, hparams: dict[str, Any], *, test_csv: str | Sequence[str]
) -> dict[str, float]:
    """Reads test manifests with the best checkpoint: for ``evaluate`` in a YAML.

    It reads every clip, however short or long. Every rank has to call it.

    Arguments
    ---------
    brain : CTCBrain
        After ``fit``.
    hparams : dict
        As for ``make_loaders``.
    test_csv : str or list of str
        Manifests with the column ``wrd``. Of ``test-clean.csv``, errors go to
        ``wer_test-clean.txt``.

    Returns
    -------
    rates : dict of str to float
        Word error rate in per cent, by the name of the manifest.
    """
    manifests = [test_csv] if isinstance(test_csv, str) else test_csv
    options = {"min_samples": brain.min_samples, "columns": brain.columns}
    shortest = brain.min_samples / hparams["sample_rate"]
    every_clip = {"min_seconds": shortest, "max_seconds": math.inf}
    rates = {}
    for manifest in manifests:
        files = {"train_csv": manifest, "valid_csv": manifest}
        _, loader = make_loaders({**hparams, **every_clip, **files}, **options)
        name = Path(manifest).stem
        rates[name] = brain.test(name, loader)
    return rates
