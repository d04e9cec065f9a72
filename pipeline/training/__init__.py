"""Training of the shipped model: data, autoencoder, diffusion transformer."""
