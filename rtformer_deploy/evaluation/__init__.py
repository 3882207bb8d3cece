"""Quality and comparison: mIoU of one model, and where two models first differ."""
