"""An upstream for s3prl: see README.md."""
