#!/usr/bin/env python3
"""Pretrains on a folder of audio, or on a manifest of it.

> python recipes/OwnSpeech/train.py recipes/OwnSpeech/hparams/best_rq.yaml --source <folder>
"""

from brainquant.recipe import main

if __name__ == "__main__":
    main()
