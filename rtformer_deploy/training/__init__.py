"""The parts of training, one idea a file; `rtformer_deploy.train` puts them together."""
