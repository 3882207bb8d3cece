"""A model repository for NVIDIA Triton: its configurations, what runs in Triton's Python, and a check of a Triton that runs."""
