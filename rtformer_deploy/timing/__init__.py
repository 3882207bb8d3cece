"""Latency and throughput: bench, paced runs, time per layer, reports."""
