"""Makes a bundle on the vendor's machine; the only package that needs an engine or a network.

`build` assembles what `suppliers` collect. `images`, `hosts` and `about` depend on `problems`,
`cache`, `machine`, `release`, `content` and `wheels` only. The same tree and the same time give the
same bytes.
"""
