"""Models of transformers, held inside our Brains."""
