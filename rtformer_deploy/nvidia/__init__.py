"""What NVIDIA's libraries tell: the driver, NVML, NVRTC."""
