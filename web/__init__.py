"""The web package: webhooks, API, console, health and metrics."""
