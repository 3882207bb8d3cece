"""Access to NVIDIA's libraries: the driver, NVML, NVRTC."""
