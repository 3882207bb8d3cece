"""The parts of `tune`: blocks, the order in which they leave INT8, measured points, the journal on disk, and its output files."""
