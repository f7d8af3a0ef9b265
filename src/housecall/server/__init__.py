"""The HTTP API: ``app.create_app`` makes it, ``run.serve`` serves it."""
