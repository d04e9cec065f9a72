"""Cameras, conventions, G-buffers, splat rendering, PBR shading and turntables."""
