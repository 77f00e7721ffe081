"""How to load a model: the part of its card that says it for each kind of folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME = "user/name"
PLACE = f"`{NAME}` stands for the id of this model on the Hub, or for the path of this folder.\n"
TOKENS = f"brainquant tokens {NAME} FOLDER_OF_AUDIO --format npz --output codes.npz\n"

BRAINQUANT = """\
With brainquant, which reads data only, so nothing in this folder is executed:

```python
import brainquant, torch

encoder = brainquant.load_pretrained("{name}")
wavs = torch.randn(1, {sample_rate})  # (batch, samples) at {sample_rate} Hz
hidden, frames = encoder(wavs)  # ({example})
```
"""

SPEECHBRAIN = """\
With SpeechBrain:

```python
from speechbrain.inference import WaveformEncoder

encoder = WaveformEncoder.from_hparams(source="{name}")
```

SpeechBrain executes `hyperparams.yaml`: **YAML of this form is code that runs on your machine.** \
Use `from_hparams` only for folders of people whom you trust.
"""

COMMANDS = """\
Without Python code of your own: features and {units} in files for other tools, or an encoder for \
ONNX Runtime:

```bash
brainquant encode {name} FOLDER_OF_AUDIO --output features.npz
{tokens}brainquant export {name} --output onnx --format onnx
```
"""

TRANSFORMERS = """\
With transformers:

```python
import torch
from transformers import AutoFeatureExtractor, AutoModel

features = AutoFeatureExtractor.from_pretrained("{name}")
model = AutoModel.from_pretrained("{name}").eval()
wav = torch.randn({sample_rate})  # one clip at {sample_rate} Hz
inputs = features(wav.numpy(), sampling_rate={sample_rate}, return_tensors="pt")
with torch.no_grad():
    hidden = model(**inputs).last_hidden_state  # ({example})
```

The weights are those of a `{class_name}`. For speech recognition, \
`{ctc_name}.from_pretrained("{name}", vocab_size=...)` puts a new head onto the encoder.{others}
"""

PADDING = """\
In a batch, transformers lets the normalisation of this model's convolutions read the padding, so \
a clip gets other hidden states beside a longer one. brainquant gives it the same in any batch.
"""

# Other libraries that read a folder of transformers, by the class in it
OTHERS = {
    "HubertModel": "SpeechBrain's `HuBERT` and s3prl's `hf_hubert`",
    "Wav2Vec2BertModel": "SpeechBrain's `W2VBert`",
    "Wav2Vec2ForPreTraining": "SpeechBrain's `Wav2Vec2` and s3prl's `hf_wav2vec2`",
    "Wav2Vec2Model": "SpeechBrain's `Wav2Vec2` and s3prl's `hf_wav2vec2`",
    "WavLMModel": "SpeechBrain's `WavLM`",
}

FILES = """\
Without Python code of your own: features{units} in files for other tools.

```bash
brainquant encode {name} FOLDER_OF_AUDIO --output features.npz
{tokens}```
"""


def how_to_load(about: Mapping[str, Any]) -> str:
    """Ways into a folder of our own.

    Arguments
    ---------
    about : Mapping
        What ``about_model`` gives.
    """
    parts = ["## How to load it\n", PLACE, BRAINQUANT, SPEECHBRAIN, COMMANDS]
    return "\n".join(parts).format(
        units="codes" if about["num_codebooks"] else "features of any layer", **_values(about)
    )


def how_to_load_in_transformers(
    about: Mapping[str, Any], class_name: str, *, reads_padding: bool
) -> str:
    """Ways into a folder of transformers.

    Arguments
    ---------
    about : Mapping
        What ``about_model`` gives.
    class_name : str
        The class whose weights are in the folder, such as ``HubertModel``.
    reads_padding : bool
        Whether transformers' convolutions read the padding of a batch (group norm).
    """
    padding = [PADDING] if reads_padding else []
    parts = ["## How to load it\n", PLACE, TRANSFORMERS, *padding, BRAINQUANT, FILES]
    return "\n".join(parts).format(
        class_name=class_name,
        ctc_name=class_name.removesuffix("Model").removesuffix("ForPreTraining") + "ForCTC",
        others=f" {OTHERS[class_name]} can load this folder, too." if class_name in OTHERS else "",
        units=" and codes" if about["num_codebooks"] else "",
        **_values(about),
    )


def _values(about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": NAME,
        "sample_rate": about["sample_rate"],
        "example": f"1, about {int(about['frame_rate'])}, {about['dim']}",
        "tokens": TOKENS if about["num_codebooks"] else "",
    }
