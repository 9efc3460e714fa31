"""The commands, and the local stack."""
