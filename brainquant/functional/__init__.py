"""Functions of tensors without state."""
