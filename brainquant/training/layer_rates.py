"""Learning rates that differ by layer of an encoder."""

from typing import Any

from ..models.speech_encoder import SpeechEncoder


def layer_groups(encoder: SpeechEncoder, layer_decay: float) -> list[dict[str, Any]]:
    """Groups of parameters for the optimiser, one for each layer, from the lowest.

    The lowest group has what is below the layers. ``lr_scale`` of a group multiplies the learning
    rate of the schedule: it is 1 in the last layer.

    Arguments
    ---------
    encoder : SpeechEncoder
        Frozen parameters are in no group, and a layer without others has none.
    layer_decay : float
        The learning rate of a layer is so many times that of the layer above.

    Example
    -------
    >>> from unittest.mock import Mock
    >>> encoder = Mock(parameters_by_layer=lambda: [["positions"], ["first"], ["last"]])
    >>> {group["params"][0]: group["lr_scale"] for group in layer_groups(encoder, 0.5)}
    {'positions': 0.25, 'first': 0.5, 'last': 1.0}
    """
    layers = encoder.parameters_by_layer()
    return [
        {"params": parameters, "lr_scale": layer_decay**below_last}
        for parameters, below_last in zip(layers, reversed(range(len(layers))))
        if parameters
    ]


def check_weight_decay(remove_vector_weight_decay: bool) -> None:
    """Raises a ValueError if parameters are also to be grouped by their weight decay."""
    if remove_vector_weight_decay:
        raise ValueError(
            "remove_vector_weight_decay has no effect here: parameters are grouped by layer; "
            "take it away, or set weight_decay: 0 of the optimizer"
        )
