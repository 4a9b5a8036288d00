"""The HTTP layers that all endpoints share: middleware, errors, authentication, health."""
