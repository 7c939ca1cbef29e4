"""Synthetic satellite images by an image-to-image GAN and a conditional diffusion model."""
