"""The PyTorch network as a runner: the reference for engines."""
