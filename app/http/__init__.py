"""What every HTTP answer shares: middleware, errors, authentication, health."""
