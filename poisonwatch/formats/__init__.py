"""What a record says: its fields, by whatever names, as the turns that a trainer trains on."""
