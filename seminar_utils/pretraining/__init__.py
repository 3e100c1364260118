"""How foundation models are made. Supervised training first; the self-supervised ones have a file each."""
