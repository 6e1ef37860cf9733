"""What a function fails with."""


class Error(Exception):
    """A message for the people who run the job: lowercase, no final dot, values in backticks.

    A failing function fails the job; it is not called again with the same rows. Any other exception does the same, with its
    type and the line that it came from.
    """
