"""Container images: from registries or from Debian packages, as one OCI layout."""
