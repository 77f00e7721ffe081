"""How a trained encoder is given away."""
