#!/usr/bin/env python3
"""Pretrains on your own audio, as listed in two manifests.

The YAML says what is trained:
> python recipes/TEMPLATE/train.py recipes/TEMPLATE/hparams/best_rq.yaml
"""

from brainquant.recipe import main

if __name__ == "__main__":
    main()
