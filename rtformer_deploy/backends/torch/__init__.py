"""The PyTorch network as a runner: what engines are compared with."""
