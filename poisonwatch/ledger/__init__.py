"""Every row ever seen, what audits found in it and what people decided; SQLAlchemy, no model."""
