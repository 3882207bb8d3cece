"""The Runner contract: sessions, and frames to label maps over them; the same for every backend."""
