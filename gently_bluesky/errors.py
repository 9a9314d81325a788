"""What can go wrong, by name. Each error also is the builtin that a caller would think of first.

Messages say what was asked, what is there, and what to do. Nothing here knows how errors come about.
"""

from collections.abc import Mapping
from typing import Any


class GentlyError(Exception):
    """Root of every error of this project."""


class MissingExtraError(GentlyError, ImportError):
    """What was asked for needs a package that is not installed; the message says which extra has it."""


# --- configuration, plans and devices -----------------------------------------------------------------------


class ConfigError(GentlyError, ValueError):
    """A configuration that cannot be meant: the message names the file and the path of the key."""


class PlanError(GentlyError, ValueError):
    """A plan that cannot be carried out as it was asked for; nothing has begun."""


class PlanTypeError(PlanError, TypeError):
    """A plan was given something of another kind than it takes."""


class DeviceError(GentlyError, RuntimeError):
    """The hardware refused, failed or went silent."""


class ReadingError(DeviceError):
    """A reading failed. It is never replaced by a number."""


class MoveError(DeviceError):
    """A move was refused or ended elsewhere than it was sent."""


class MoveTimeoutError(MoveError, TimeoutError):
    """A move did not end in its time."""


class PresetError(DeviceError, ValueError):
    """A laser preset, power or state that is not allowed here."""


class AcquisitionError(DeviceError):
    """A volume could not be taken as it was asked for."""


class CameraTimeoutError(AcquisitionError, TimeoutError):
    """The camera stopped delivering frames."""


class ExposureStoppedError(AcquisitionError):
    """An exposure was cut short from outside: a pause, a stop or an unstage."""


class ExposingError(AcquisitionError):
    """Something was to be changed on which an exposure depends that is going on."""


class BufferOverflowError(AcquisitionError):
    """Frames came faster than they could be taken from the camera's buffer; some are lost."""


# --- writing ------------------------------------------------------------------------------------------------


class DocumentError(GentlyError, ValueError):
    """A document that cannot be journalled: the message names the document and the place in it."""


class NoOpenRunError(GentlyError, RuntimeError):
    """Frames are offered while no run, or more than one, is open."""


class FrameError(GentlyError, ValueError):
    """A frame of another shape or dtype, for a plane that does not exist or was written before."""


class VolumeIncompleteError(GentlyError, RuntimeError):
    """A volume came short."""


class WriterFailedError(GentlyError, RuntimeError):
    """The writer met an error in its own thread; the cause is attached."""


class DiskFullError(GentlyError, OSError):
    """There is no room for what was asked."""


class RunLockedError(GentlyError, RuntimeError):
    """Another process writes this run."""


class RunElsewhereError(GentlyError, RuntimeError):
    """Another machine writes this run, or did: whether it lives cannot be seen from here."""


class RunExistsError(GentlyError, FileExistsError):
    """The run is already in this root."""


# --- exchange -----------------------------------------------------------------------------------------------


class ImportRefusedError(GentlyError, ValueError):
    """What was to be imported cannot be, or not as it was asked for; nothing was written."""


# --- deriving -----------------------------------------------------------------------------------------------


class DerivationError(GentlyError, ValueError):
    """Data that cannot be derived as it was asked for."""


# --- keeping ------------------------------------------------------------------------------------------------


class RunKeptError(GentlyError, RuntimeError):
    """A run that is not taken away: it is being written, was interrupted, or is tagged to be kept."""


class NotInTrashError(GentlyError, FileNotFoundError):
    """What was to be restored is not in the trash."""


class ConversionError(GentlyError, ValueError):
    """A volume that was not converted: what was read, or what was written, is not what the manifest says."""


# --- export -------------------------------------------------------------------------------------------------


class ExportError(GentlyError, ValueError):
    """What cannot be exported as it was asked for; nothing stands under its final name."""


class NothingSelectedError(ExportError, LookupError):
    """A selection of which there is nothing, or not all that it names; the message says what there is."""


class LossyCastError(ExportError):
    """Pixels that the dtype they are to have cannot hold."""


class TargetExistsError(GentlyError, FileExistsError):
    """Where an export is to go, something is already."""


# --- roots and reading --------------------------------------------------------------------------------------


class RootError(GentlyError, OSError):
    """A folder that is no root, cannot be used as one, or was made by a newer version."""


class JournalError(GentlyError, ValueError):
    """A journal or manifest holds a line that nobody wrote like that."""


class RunNotFoundError(GentlyError, KeyError):
    """No run answers to this key."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr


class AmbiguousRunError(RunNotFoundError):
    """Several runs answer to this key; the message lists them."""


class StreamNotFoundError(GentlyError, KeyError):
    """A run has no such stream, or a stream no such data key."""

    __str__ = RunNotFoundError.__str__


class BadVolumeError(GentlyError, ValueError):
    """The event is marked as not good; `include_bad=True` reads it all the same."""


class FrameMissingError(GentlyError, LookupError):
    """Planes that were asked for were never written."""


class VolumeMissingError(GentlyError, FileNotFoundError):
    """The documents name a volume that no file holds."""


class VolumeRemovedError(VolumeMissingError):
    """The documents name a volume that retention took away, or a person; `more` says how."""

    def __init__(self, message: str, *, more: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.more = dict(more or {})


class DamagedVolumeError(VolumeMissingError):
    """A stored volume of which a part is gone, or is not what was written."""


class GeometryError(GentlyError, ValueError):
    """The volumes of a series do not agree in what was asked."""


class UnfillableError(GentlyError, RuntimeError):
    """No handler can read an asset that others wrote."""


class DatumNotFoundError(UnfillableError):
    """An event names a datum that came in no document of its run."""


# --- serving ------------------------------------------------------------------------------------------------


class SliceError(GentlyError, ValueError):
    """The text of a slice that is none."""


class NotHereError(GentlyError, LookupError):
    """A server was asked for something that it does not have; `more` says what there is."""

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message)
        self.more = more


class NotYetError(GentlyError, LookupError):
    """Frames of a volume that is still being acquired, and that have not come yet."""


class TooLargeError(GentlyError, ValueError):
    """More was asked for at once than a server gives; the message says the limit, and how to ask for less."""

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message)
        self.more = more


class TooBusyError(GentlyError, RuntimeError):
    """A server has too much to do at the moment."""


# --- other machines -----------------------------------------------------------------------------------------


class ElsewhereError(GentlyError, RuntimeError):
    """What was asked for is a folder or a file of another machine."""


class ServerError(GentlyError, OSError):
    """A server of another machine that does not answer as it should."""


class ServerGoneError(ServerError, ConnectionError):
    """Nobody answers, or not in time; asking again did not help."""


class ServerRefusesError(ServerError, PermissionError):
    """It wants a token, or another one, or does not let this client in."""


class ServerVersionError(ServerError):
    """It is older or newer than this client, or no server of gently_bluesky."""


class ServerAnswerError(ServerError, ValueError):
    """Its answer was cut short, or is not understood; none of it was taken."""
