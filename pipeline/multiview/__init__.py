"""The 3D-aware multi-view diffusion model: autoencoder, transformer, pipeline and text encoder."""
