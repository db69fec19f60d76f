"""The frozen model: its files, its tokens, its hidden states and their gradients."""
