"""What people look at: the review dashboard (`app`), and the templates of reports."""
