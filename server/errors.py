"""The base of every error that reaches the user as one sentence."""


class ServerError(Exception):
    """Something the user can act on: the message says what happened and what to do.

    ``refused`` tells a change that was understood and turned down from a server that cannot be set up.
    """

    code = "SERVER"
    refused = False
