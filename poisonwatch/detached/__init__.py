"""Audits and drills in processes of their own, which outlive whoever started them."""
