"""Tensors in, tensors out, no state: the searches and gathers that quantisers are made of."""
