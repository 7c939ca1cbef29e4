"""Synthetic satellite images: by an image-to-image GAN, by a conditional diffusion model, or painted by the miniature."""
