"""Speech encoders, and the layers and features that they are made of."""
