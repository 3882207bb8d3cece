"""The parts of training, one idea a file; `run` puts them together."""
