"""The models and the endpoints that serve them."""
