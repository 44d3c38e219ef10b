"""Built-in methods of the registry, one folder each, installed through the same entry points as a stranger's plugin."""
