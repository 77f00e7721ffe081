#!/usr/bin/env python3
"""Pretrains on ToySpeech, speech that this recipe synthesises itself.

The YAML says what is trained:
> python recipes/ToySpeech/train.py recipes/ToySpeech/hparams/best_rq.yaml
> python recipes/ToySpeech/train.py recipes/ToySpeech/hparams/wav2vec2.yaml
"""

import sys

from brainquant.errors import RunError, one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        # Imported in here: Ctrl-C meanwhile ends the program with one line, too.
        import speechbrain as sb
        from speechbrain.utils.distributed import run_on_main

        from brainquant.data.batches import make_loaders
        from brainquant.ranks import join_group, leave_group
        from brainquant.training.hparams import load_hparams, parse_arguments, run_folder
        from brainquant.training.log_config import log_config
        from brainquant.training.resolve import write_hparams
        from brainquant.training.run_lock import RunLock

        hparams_file, run_opts, overrides = parse_arguments(sys.argv[1:])
        join_group(run_opts)
        hparams = load_hparams(hparams_file, overrides)
        folder = run_folder(hparams["output_folder"], run_opts)
        lock = RunLock(folder)
        lock.acquire()
        write_hparams(folder, hparams_file, overrides)
        sb.create_experiment_directory(folder, log_config=log_config(run_opts))
        if hparams["prepare"]:
            run_on_main(hparams["prepare"])
        brain = hparams["brain_class"](
            hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
        )
        train_loader, valid_loader = make_loaders(hparams, min_samples=brain.min_samples)

    with one_line_errors(RunError):
        brain.fit(hparams["epoch_counter"], train_loader, valid_loader)
        if hparams["evaluate"]:
            hparams |= {"hparams_file": hparams_file, "overrides": overrides}
            brain.evaluate_once(hparams["evaluate"], hparams)
        leave_group()
