"""Frames from anywhere to results: sources (images, videos, cameras, networks), one loop with a runner, sinks (pictures, videos)."""
