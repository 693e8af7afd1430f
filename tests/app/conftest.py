from tests.served import server  # noqa: F401
