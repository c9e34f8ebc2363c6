"""The user's side: handlers, codecs, requirements."""
