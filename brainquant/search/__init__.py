"""The nearest codes of vectors: in plain torch, compiled with numba, or on a GPU with Triton."""
