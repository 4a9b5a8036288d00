"""What a release says of itself: the members below `about/`.

Follows from files alone: nothing here asks an engine or a registry, so a delta's documents are
those of the full bundle. `documents` calls the parts in their order.
"""
