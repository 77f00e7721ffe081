"""A process, its parent, children, signals and streams; imports nothing heavy."""
