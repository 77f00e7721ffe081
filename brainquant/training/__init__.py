"""What a run needs around its model: options that hold, randomness that can be repeated."""
