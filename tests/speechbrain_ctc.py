"""A Brain that uses an encoder as SpeechBrain's CTC recipe for wav2vec 2.0 does, and no more.

The recipe is not in SpeechBrain's package, so this stands for it: the same keys of the YAML, the
same calls of its modules, the same optimisers, checkpoints and decoding in the validation.
"""

import sys

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml


class Recognizer(sb.Brain):
    def compute_forward(self, batch, stage):
        wavs, wav_lens = batch.to(self.device).sig
        features = self.modules.wav2vec2(wavs, wav_lens)
        logits = self.modules.ctc_lin(self.modules.enc(features))
        return self.hparams.log_softmax(logits), wav_lens

    def compute_objectives(self, predictions, batch, stage):
        log_probs, wav_lens = predictions
        if stage == sb.Stage.VALID:
            sb.decoders.ctc_greedy_decode(log_probs, wav_lens, blank_id=0)
        return self.hparams.ctc_cost(log_probs, batch.tokens.data, wav_lens, batch.tokens.lengths)

    def init_optimizers(self):
        self.encoder_optimizer = self.hparams.wav2vec_opt_class(self.modules.wav2vec2.parameters())
        self.model_optimizer = self.hparams.model_opt_class(self.hparams.model.parameters())
        self.optimizers_dict = {"model": self.model_optimizer}
        if not self.hparams.freeze_wav2vec:
            self.optimizers_dict["encoder"] = self.encoder_optimizer

    def on_stage_end(self, stage, stage_loss, epoch):
        print(f"{stage.name} loss {stage_loss:.3f}")
        if stage == sb.Stage.VALID:
            self.checkpointer.save_and_keep_only(meta={"loss": stage_loss}, min_keys=["loss"])


if __name__ == "__main__":
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    data = sb.dataio.dataset.DynamicItemDataset.from_csv(hparams["train_csv"])
    data.add_dynamic_item(sb.dataio.dataio.read_audio, takes="wav", provides="sig")
    data.add_dynamic_item(
        lambda words: torch.tensor([1 + ord(c) % 27 for c in words]), takes="wrd", provides="tokens"
    )
    data.set_output_keys(["id", "sig", "tokens"])
    brain = Recognizer(
        hparams["modules"], None, hparams, run_opts, checkpointer=hparams["checkpointer"]
    )
    before = [p.clone() for p in hparams["wav2vec2"].parameters()]
    loader = {"batch_size": 2}
    brain.fit(hparams["epoch_counter"], data, data, loader, loader)
    brain.evaluate(data, min_key="loss", test_loader_kwargs=loader)
    after = hparams["wav2vec2"].parameters()
    print("encoder changed:", any(not torch.equal(a, b) for a, b in zip(before, after)))
