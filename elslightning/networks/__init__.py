"""Trained denoisers: backbones that predict eps, v or x0, wrapped by `NetworkDenoiser`; and networks from elsewhere."""
