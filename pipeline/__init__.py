"""Prompts, the multi-view diffusion model, distillation, stages and the command line."""
