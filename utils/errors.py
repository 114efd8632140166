"""The one error that a user can cause."""


class UserError(Exception):
    """A mistake that the user can mend: one line saying what, where and the remedy.

    The commands print the line and end with exit status 2, without a traceback.
    """
