"""Negatives and contrastive loss of wav2vec 2.0: SpeechBrain's beside ours, forward and backward.

> python tests/benchmarks/losses.py

100 negatives, 256 wide; times alternate in one run, memory is from processes of their own. Needs
8 GB. SpeechBrain's is what its recipe calls: `sample_negatives` and `ContrastiveLoss`.
"""

import argparse
import json

import torch
from measure import alternate, extra_mb, in_process, machine, print_table
from speechbrain.lobes.models import wav2vec as stock
from speechbrain.nnet.losses import ContrastiveLoss

from brainquant.losses import contrastive_loss, sample_negatives

SIZES = ((8, 160), (16, 320))
NEGATIVES, DIM, TEMPERATURE = 100, 256, 0.1


def make_call(code, batch, masked):
    """A function that goes forward and backward once."""
    torch.manual_seed(0)
    context, targets = (torch.randn(batch, masked, DIM, requires_grad=True) for _ in range(2))
    counts, codes = torch.full((batch,), masked), torch.randint(320, (batch, masked, 2))
    loss_module = ContrastiveLoss(TEMPERATURE)

    def speechbrain():
        negatives = stock.sample_negatives(targets, NEGATIVES)
        loss_module(context, targets, negatives)[0].backward()

    def ours():
        negatives = sample_negatives(counts, masked, NEGATIVES)
        contrastive_loss(context, targets, codes, counts, negatives, TEMPERATURE)[0].backward()

    return {"speechbrain": speechbrain, "ours": ours}[code]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        code, *size = options.memory
        make_call(code, 1, 4)()  # what the library takes at first is not the call's
        print(json.dumps(extra_mb(make_call(code, *map(int, size)))))
        return
    print(machine())
    rows = []
    for size in SIZES:
        codes = "speechbrain", "ours"
        seconds = alternate({code: make_call(code, *size) for code in codes}, repeats=5)
        memory = {code: in_process(__file__, "--memory", code, *size) for code in codes}
        rows.append({
            "utterances x frames": "{} x {}".format(*size),
            **{f"{code}, ms": 1000 * seconds[code] for code in codes},
            "times as fast": seconds["speechbrain"] / seconds["ours"],
            **{f"{code}, MB": memory[code] for code in codes},
            "times less": memory["speechbrain"] / memory["ours"],
        })  # fmt: skip
    print_table("Negatives and contrastive loss", rows)


if __name__ == "__main__":
    main()
