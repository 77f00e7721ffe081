"""SpeechBrain's stock BEST-RQ and wav2vec 2.0, to train the encoder of a Brain in their way.

The code is that of the two recipes in 1.1.2 (they are not in its package), on what the package
has: collate functions, quantisers, sampling of negatives, loss; with their masks and optimiser.
"""

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.BESTRQ import brq_mask_collate_fn
from speechbrain.lobes.models.wav2vec import (
    W2VLatentExtractor,
    W2VTargetQuantiser,
    sample_negatives,
    w2v_mask_collate_fn,
)
from speechbrain.nnet.CNN import Conv2d
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.losses import ContrastiveLoss
from speechbrain.nnet.quantisers import RandomProjectionQuantizer
from speechbrain.nnet.schedulers import NoamScheduler

from brainquant.models.quick import QUICK


class StockBestRQ(torch.nn.Module):
    """The step of SpeechBrain's BEST-RQ recipe, on the encoder of a Brain."""

    def __init__(self, brain):
        super().__init__()
        hparams = brain.hparams
        encoder = brain.modules["encoder"]
        self.compute_features, self.normalize = encoder.compute_features, encoder.normalize
        self.front_end, self.encoder = encoder.front_end, encoder.transformer
        self.quantiser = RandomProjectionQuantizer(320, 16, 8192)
        self.linear = Linear(input_size=hparams.d_model, n_neurons=8192)
        self.noise = hparams.noise_mean, hparams.noise_std

    def collate(self, clips):
        return brq_mask_collate_fn(
            clips, lambda samples: samples // 160 + 1, mask_prob=0.15, mask_length=4, n_mels=80
        )

    def forward(self, wavs, wav_lens, mask):
        feats = self.normalize(self.compute_features(wavs), wav_lens)
        feats = F.pad(feats, (0, 0, -feats.shape[1] % 4, 0))  # on the left, as it is there
        batch, frames, size = feats.shape
        stacks = mask[::4] // 4
        targets = self.quantiser(feats.view(batch, frames // 4, -1)[:, stacks])
        mean, std = self.noise
        feats[:, mask] = torch.normal(mean, std, (batch, len(mask), size))
        logits = self.linear(self.encoder(self.front_end(feats), wav_lens))[:, stacks]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class StockWav2Vec2(torch.nn.Module):
    """The step of SpeechBrain's wav2vec 2.0 recipe, on extractor and encoder of a Brain."""

    def __init__(self, brain):
        super().__init__()
        encoder = brain.modules["encoder"]
        self.extractor, self.encoder = encoder.extractor, encoder.transformer
        dim = brain.hparams.vq_dim
        self.quantiser = W2VTargetQuantiser(in_dim=brain.hparams.channels, out_dim=dim)
        self.feat_proj = torch.nn.Linear(brain.hparams.d_model, dim)
        self.loss = ContrastiveLoss(logit_temp=0.1)
        self.steps = 0

    def collate(self, clips):
        clips = [{**clip, "sig": F.layer_norm(clip["sig"], clip["sig"].shape)} for clip in clips]
        lengths = self.extractor.get_output_lengths
        return w2v_mask_collate_fn(clips, lengths, mask_prob=0.65, mask_length=10)

    def forward(self, wavs, wav_lens, mask):
        batch = len(wavs)
        latents = W2VLatentExtractor.forward(self.extractor, wavs, normalize_signal=False)
        embeddings = self.encoder(latents, mask=mask, wav_lens=wav_lens)["embeddings"]
        embeddings = self.feat_proj(embeddings[mask]).view(batch, -1, self.feat_proj.out_features)
        targets, meta = self.quantiser(latents[mask].view(batch, -1, latents.shape[2]))
        self.steps += 1
        self.quantiser.quantiser.update_temp(self.steps)
        loss, _ = self.loss(embeddings, targets, sample_negatives(targets, 100))
        return loss + 0.1 * meta["diversity_loss"] * mask.sum()


# Step, largest norm of gradients, and epsilon of AdamW, as in the recipes.
STOCK = {"best_rq": (StockBestRQ, 10, 1e-9), "wav2vec2": (StockWav2Vec2, 100, 1e-6)}


class StockTraining:
    """Steps of stock's code on the encoder of a Brain, in its precision.

    Arguments
    ---------
    objective : str
        Of ``STOCK``.
    brain : brainquant.brains.pretrain.PretrainBrain
        Its modules are trained.
    lr : float
        Learning rate after the warm-up.
    warmup_steps : int
        Steps of the warm-up.
    """

    def __init__(self, objective, brain, lr, warmup_steps):
        step_class, self.max_norm, eps = STOCK[objective]
        for part in brain.modules.modules():  # without what ours has of its own
            for stock in (Conv2d, *QUICK):
                if isinstance(part, stock):
                    part.__class__ = stock
        self.device, self.training_ctx = brain.device, brain.training_ctx
        self.model = step_class(brain).to(self.device).train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr, betas=(0.9, 0.98), eps=eps, weight_decay=0.01
        )
        self.schedule = NoamScheduler(lr, warmup_steps)

    def step(self, clips):
        """Trains on a list of clips."""
        self.schedule(self.optimizer)
        wavs, wav_lens, mask = self.model.collate(clips)
        with self.training_ctx:
            loss = self.model(wavs.to(self.device), wav_lens.to(self.device), mask)
        loss.backward()
        self.update()

    def update(self):
        """The optimiser's part of a step."""
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
