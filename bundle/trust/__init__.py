"""Signers: lists of allowed signers, SSH signatures, the custody log.

`ssh-keygen` decides about signatures. The lists are read strictly first, so that Airlift and
ssh-keygen read the same. Nothing here depends on what is signed.
"""
