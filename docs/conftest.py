"""The plugin template is a package of its own: `tests/fm_core/test_new_plugin.py` runs its tests."""

collect_ignore = ["plugin_template"]
