"""The rule language: from a YAML file to enumerated names, shapes and steps."""
