"""Which way to grow is best: studies of several scalings with the same seeds."""
