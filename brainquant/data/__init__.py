"""Corpora: one way to build datasets and loaders, one prepare_<corpus> per corpus."""
