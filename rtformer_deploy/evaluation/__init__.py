"""How good and how equal: mIoU, two models compared, where they first differ."""
