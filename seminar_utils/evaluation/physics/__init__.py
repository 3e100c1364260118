"""What a device does to an image: one file for each kind of physics, used through `evaluation/shifts.py`.

A shift is a function of (x, severity, draws): x (B, C, H, W) floats in [0, 1], severity 1 to 5, draws the random
numbers of the batch. It returns the same shape; `apply_shift` checks what goes in and clips what comes out.
Lengths are shares of the image's shorter side, so that 28 pixels and 224 pixels are degraded alike. Most shifts
are written as x + strength * (a direction that does not depend on the severity): that makes them monotone.
"""
