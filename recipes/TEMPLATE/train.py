#!/usr/bin/env python3
"""Pretrains on audio of your own, whatever the manifests list.

The YAML says what is trained:
> python recipes/TEMPLATE/train.py recipes/TEMPLATE/hparams/best_rq.yaml
"""

import sys

import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_init_group, run_on_main

from brainquant.data.manifests import make_loaders
from brainquant.training.hparams import clear_errors, load_hparams, parse_arguments

if __name__ == "__main__":
    with clear_errors():
        hparams_file, run_opts, overrides = parse_arguments(sys.argv[1:])
        ddp_init_group(run_opts)
        hparams = load_hparams(hparams_file, overrides)
        sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
        if hparams["prepare"]:
            run_on_main(hparams["prepare"])
        train_loader, valid_loader = make_loaders(hparams)
        brain = hparams["brain_class"](
            hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
        )

    brain.fit(hparams["epoch_counter"], train_loader, valid_loader)
    if hparams["evaluate"]:
        run_on_main(hparams["evaluate"], [brain, hparams_file, overrides])
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()  # a rank that just exits makes gloo abort others
