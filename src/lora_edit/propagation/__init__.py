"""An edit carried from its edited frames to all others, without a diffusion model: explanations of the edit, and their mixture."""
