"""What of past audits may go, and its removal: run directories, and operators in them."""
