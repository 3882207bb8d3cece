"""The parts of training, one in each module; `run` puts them together."""
