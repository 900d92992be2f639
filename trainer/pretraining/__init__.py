"""How the default model was made: a miniature Stable Diffusion, trained from nothing on emoji."""
