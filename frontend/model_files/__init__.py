"""From MODEL as the user wrote it to files on this host. Runs in the supervisor: no torch, no tokenizers library."""
