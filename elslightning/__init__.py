"""How much of what a convolutional diffusion model creates does an analytic patch theory predict?"""

__version__ = "0.1.0"
