"""OpenVINO: the fastest engine on a CPU; its plan is one portable file."""
