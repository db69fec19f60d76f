"""MLflow: audits as runs, operators as registered models, flagged rows in the review queue."""
