"""The parts of training, one idea a file; `commands/train.py` puts them together."""
