"""Features, codes and units of a whole corpus, written into files that other tools read."""

from .job import Job
from .results import Features, KMeansTokens, QuantiserTokens
from .run import extract

__all__ = ["QuantiserTokens", "Features", "Job", "KMeansTokens", "extract"]
