"""A row as the text that training makes of it, and as tokens: templates, trained spans, guards."""
