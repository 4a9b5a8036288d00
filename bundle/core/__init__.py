"""Files, locks, output, the shape of data, and how numbers and tables read.

Knows nothing of bundles. Whatever is read may be anybody's: it is opened as a regular file and with
a limit. Whatever is written is whole after a power cut, or not there.
"""
