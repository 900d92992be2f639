"""The layout that Stable Diffusion was published in: one file, as A1111 and ComfyUI read it."""
