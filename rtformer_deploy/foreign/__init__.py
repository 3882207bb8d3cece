"""Models from elsewhere: an ONNX file without a ModelSpec, and what the user says about it -> a model in order, and its ModelSpec.

`ends` chooses the input and the output, `trial` has the model run once in a process of its own (`attempt`, over `libraries`; what it
showed is in `seen`), `meaning` reads what the output's numbers are, and `read` puts them together.
"""
