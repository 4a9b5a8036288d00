"""Who signed: lists of signers, SSH signatures, the custody log.

`ssh-keygen` decides about signatures; the lists are read strictly first, so that both read the
same. Nothing here knows what is signed.
"""
