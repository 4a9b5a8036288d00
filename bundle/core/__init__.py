"""Files, locks, output, the shape of data, and the form of numbers and tables.

Nothing here depends on bundles. Every file that is read is untrusted: it is opened as a regular
file and with a limit. A file that is written is complete after a power cut, or does not exist.
"""
