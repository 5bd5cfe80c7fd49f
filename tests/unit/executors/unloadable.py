"""A module that cannot be imported."""


def read_config():
    return {}["config"]


read_config()
