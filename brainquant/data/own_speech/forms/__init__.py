"""Corpora as other tools write them: each form becomes rows of one kind."""
