"""What lies on disk, each document parsed and validated once."""
