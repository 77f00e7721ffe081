#!/usr/bin/env python3
"""Fine-tunes a pretrained encoder on transcripts: characters, CTC, greedy decoding.

The encoder comes from any pretraining run of this package, or of SpeechBrain's BEST-RQ recipe:
> python recipes/LibriSpeech/finetune_ctc.py recipes/LibriSpeech/hparams/finetune_ctc.yaml \
    --data_folder <LibriSpeech> --pretrained <output_folder of the pretraining>
"""

from brainquant.recipe import main

if __name__ == "__main__":
    main()
