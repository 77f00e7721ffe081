#!/usr/bin/env python3
"""Pretrains on LibriSpeech.

The YAML says what is trained:
> python recipes/LibriSpeech/train.py recipes/LibriSpeech/hparams/best_rq_base.yaml \
    --data_folder <LibriSpeech>
"""

from brainquant.recipe import main

if __name__ == "__main__":
    main()
