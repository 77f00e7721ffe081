"""The entry of s3prl's hub: each function without an underscore is the name of an upstream."""

from .expert import UpstreamExpert as _UpstreamExpert


def brainquant_custom(ckpt, *args, **kwargs):
    """An encoder of brainquant; ``ckpt`` is a folder or a Hub id."""
    return _UpstreamExpert(ckpt, *args, **kwargs)
