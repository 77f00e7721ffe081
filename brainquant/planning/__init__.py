"""What a run will need and see: looked at before it starts."""
