"""Fits the centroids of a quantiser to the audio of a recipe, or to that of any corpus."""

from .centroids import check_sizes, fit_centroids
from .frames import Frames, check_layer, describe_frames, stream_frames, valid_frames
from .recipes import fit_kmeans, load_weights, recipe_fingerprint, recipe_frames

__all__ = [
    "Frames",
    "check_layer",
    "check_sizes",
    "describe_frames",
    "fit_centroids",
    "fit_kmeans",
    "load_weights",
    "recipe_fingerprint",
    "recipe_frames",
    "stream_frames",
    "valid_frames",
]
