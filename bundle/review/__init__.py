"""What is inside a bundle and what changed, for people who decide."""
