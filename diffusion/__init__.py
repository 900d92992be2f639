"""A diffusion model as serving and training both need it: load, verify, encode, denoise, judge."""
