"""What runs have learned: one page for several of them, and a table that compares them."""
