"""What a run logs about itself: code counts, health, tallies, log files and the report."""
