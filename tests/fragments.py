"""The fragments of hparams/quantisers that need nothing but the encoder's inputs.

tests/unit/test_teacher.py and test_file_codes.py have those that need a teacher or labels.
"""

from pathlib import Path

OF_INPUTS = [
    path
    for path in sorted((Path(__file__).resolve().parents[1] / "hparams/quantisers").glob("*.yaml"))
    if "!name:brainquant.targets." not in path.read_text("utf-8")
]
