"""What this pipeline carries on this machine, beside the least that any reader would have to do."""
