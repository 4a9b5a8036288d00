"""One file a migration; names are integers, and none is changed once it was released."""
