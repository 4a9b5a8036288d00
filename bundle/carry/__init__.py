"""Parts for small sticks: a bundle is split and joined, and each bad part is named."""
