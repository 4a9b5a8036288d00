"""Makes a bundle on the vendor's machine; the only room that needs an engine or a network.

`build` puts together what `suppliers` collect. `problems`, `cache`, `machine`, `release`, `content`
and `wheels` are what `images`, `hosts` and `about` stand on; those import none of the others here.
The same tree and the same time give the same bytes.
"""
