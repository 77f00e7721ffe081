"""A process, its parent, its children, its signals and its streams. Imports nothing heavy."""
