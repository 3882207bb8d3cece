"""More machines than one: the same Runner, scores, ranges and service on a Ray cluster. Ray is imported inside functions alone."""
