"""Errors that a user can mend: one sentence saying what is wrong, where, and what to do."""


class InputError(ValueError):
    """What was given cannot be used; the message names the place and the remedy."""


class ConfigError(InputError):
    """The configuration is wrong."""


class DeliveryError(InputError):
    """A file of the delivery is wrong."""


class ChangedBatchError(DeliveryError):
    """A batch was changed while it was being labelled: it is labelled once it rests again."""


class MissingStageError(InputError, FileNotFoundError):
    """A stage that this one reads has not been made yet."""
