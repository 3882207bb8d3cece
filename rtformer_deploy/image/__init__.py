"""Frames in, label maps and pictures out: decode, resize, normalise, upsample, argmax, colour."""
