"""One file for each form of manifest; each has a ``read_rows`` that returns ``Found``."""
