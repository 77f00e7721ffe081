"""Features, codes and units of a whole corpus, written into files that other tools read."""
