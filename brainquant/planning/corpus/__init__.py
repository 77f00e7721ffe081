"""What a plan says about the speech of a run: its manifests, and a sample of its audio."""
