"""Runs that continue a model, started by the same command again and again."""

from tiny_run import build, run

from brainquant.training.resolve import write_hparams


def start(name, model, corpus, folder, *, interrupt=None, at=None, **overrides):
    """Trains as ``tiny_run.run`` does, with the YAML in the folder as ``main`` writes it."""
    overrides = {"model": str(model), **overrides}
    _, hparams = build(name, corpus, folder, **overrides)
    write_hparams(folder, hparams["hparams_file"], hparams["overrides"])
    return run(name, corpus, folder, interrupt=interrupt, at=at, **overrides)
