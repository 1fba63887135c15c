"""The only place where families are joined into models, saved and loaded."""
