from tests.served import models, server  # noqa: F401
