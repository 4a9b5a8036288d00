"""The documents about a release: the members below `about/`.

They follow from files alone, without an engine or a registry, so that a delta has the documents of
the full bundle. `documents` calls the parts in order.
"""
