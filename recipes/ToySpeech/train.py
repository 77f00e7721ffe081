#!/usr/bin/env python3
"""Pretrains on ToySpeech, speech that this recipe synthesises itself.

The YAML says what is trained:
> python recipes/ToySpeech/train.py recipes/ToySpeech/hparams/best_rq.yaml
> python recipes/ToySpeech/train.py recipes/ToySpeech/hparams/wav2vec2.yaml
"""

from brainquant.recipe import main

if __name__ == "__main__":
    main()
