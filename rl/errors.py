"""The exception types of the project, one per boundary where a caller would act differently.

Every message says what was got, why it matters and what to set. Wrong arguments inside the project are
asserts; these types are for input, resources and remote parts that can fail in normal use.
"""


class RLError(Exception):
    """Base of every error that the project raises on purpose."""


class ConfigError(RLError, ValueError):
    """A config file, an override or a combination of settings can't be used."""


class DataError(RLError, ValueError):
    """A dataset or a row of it can't be used. The message names the file, the row and the reason."""


class ClusterError(RLError, RuntimeError):
    """No Ray cluster could be joined or started."""


class ActorLostError(RLError, RuntimeError):
    """Ray, or an actor that nothing replaces, is gone in the middle of a run."""


class EngineError(RLError, RuntimeError):
    """An inference engine refused a request or died."""


class EngineDeadError(EngineError):
    """An inference engine can serve no further request."""


class EndpointUnavailable(EngineError):
    """An endpoint gave no reply, retries included. It says nothing about the prompt: the request may be made later."""


class SyncError(RLError, RuntimeError):
    """A weight push did not leave every engine on the pushed version."""


class FetchError(RLError, RuntimeError):
    """Weights that the learner published did not reach a worker whole. Its engine still has the old ones."""


class ImageLossError(RLError, RuntimeError):
    """An image did not reach the engine, or other pixels than the engine's reached the learner."""


class GroupsLostError(RLError, RuntimeError):
    """Tokens and pixels of finished groups are gone, with the node that held them; nothing was trained on.

    Args:
        uids: admissions of the groups, as far as they are known.
    """

    def __init__(self, message: str, uids: frozenset[int] = frozenset()) -> None:
        super().__init__(message)
        self.uids = uids


class LedgerError(RLError, RuntimeError):
    """The fates of the admitted prompts do not add up."""


class StarvationError(RLError, RuntimeError):
    """The run can make no more progress; the message names the cause."""


class DivergenceError(RLError, RuntimeError):
    """Training left the region where it means anything: non-finite loss, or engine and learner disagree."""


class CheckpointError(RLError, RuntimeError):
    """A checkpoint is missing, torn or does not fit the run."""


class TornCheckpointError(CheckpointError):
    """A file of a checkpoint is cut short or garbled; an older checkpoint may be whole."""


class StoppedError(RLError):
    """A command was asked to stop and did so in good order; started again, it goes on."""


class InterruptedRunError(RLError):
    """Ctrl-C ended a command."""


def first_lines(exc: BaseException, lines: int = 6, chars: int = 800) -> str:
    """The beginning of what an exception of another library says: enough to act on, and no stack of several pages."""
    said = "\n".join(line for line in str(exc).strip().splitlines()[:lines]) or type(exc).__name__
    return said if len(said) <= chars else said[:chars] + " ..."
