"""Views to field to mesh to material to asset files; asset inspection."""
