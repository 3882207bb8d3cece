"""The parts of `tune`: blocks, the order in which they leave INT8, measured points, the state on disk, recipe and picture."""
