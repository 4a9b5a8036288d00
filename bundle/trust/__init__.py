"""Who signed: lists of signers, SSH signatures, the custody log."""
