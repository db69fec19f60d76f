"""What an audit leaves on disk, written once and read back."""
