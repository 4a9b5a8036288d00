"""Programs of the source tree: the demo, the lab's handle, set-up, generators."""
