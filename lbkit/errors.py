"""Everything lbkit raises on purpose, as one small tree.

LbkitError
├── InputError              what came in cannot be used
│   ├── ImageReadError      a picture file
│   ├── VideoReadError      a video file, stream or camera
│   ├── BoxError            a person's box
│   └── AnnotationError     a COCO or CSV file
├── ModelError              a model file cannot be used
│   ├── ModelNotFoundError  no file of that name
│   ├── ContractError       the contract is missing, unknown or contradictory
│   ├── CheckpointError     a checkpoint is broken or of another architecture
│   └── ExportError         an exported graph is wrong
├── ProviderError           an execution provider cannot run here
├── ConfigError             a recipe or setting
├── OutputError             a file cannot be written or would be overwritten
├── MissingDependencyError  a package of an extra is not installed
└── VerdictError            everything ran, and the answer is no

Every message says what is wrong, where, and what mends it. `exit_code` is what the command line ends with.
"""

from __future__ import annotations

from os import PathLike


class LbkitError(Exception):
    """An error that lbkit raises on purpose.

    Args:
        problem: What is wrong, with what was expected and what was found.
        where: The file or thing it concerns.
        remedy: What mends it: a command or an instruction.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: str | PathLike[str] | None = None, remedy: str | None = None) -> None:
        self.problem = problem
        self.where = None if where is None else str(where)
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.problem if self.where is None else f"{self.where}: {self.problem}"
        return text if self.remedy is None else f"{text}; {self.remedy}"


class InputError(LbkitError):
    """What came in cannot be used."""


class ImageReadError(InputError):
    """A picture file cannot be read as one."""


class VideoReadError(InputError):
    """A video file, stream or camera cannot be read as one."""


class BoxError(InputError):
    """A person's box is not usable on its image."""


class AnnotationError(InputError):
    """An annotation or box file is not what it should be."""


class ModelError(LbkitError):
    """A model file cannot be used."""


class ModelNotFoundError(ModelError):
    """There is no model of that name or no file at that path."""


class ContractError(ModelError):
    """A model's contract is missing, of another version, incomplete or contradictory."""


class CheckpointError(ModelError):
    """A checkpoint is broken or belongs to another architecture."""


class ExportError(ModelError):
    """An exported graph is wrong: it cannot be made, is malformed, or disagrees with PyTorch."""


class ProviderError(LbkitError):
    """An execution provider cannot run on this machine."""


class ConfigError(LbkitError):
    """A recipe or setting is unknown or out of range."""


class OutputError(LbkitError):
    """An output cannot be written, or would overwrite something."""


class MissingDependencyError(LbkitError):
    """A package that an extra brings is not installed."""


class VerdictError(LbkitError):
    """Everything ran, and the answer is no: a parity check or a gate failed."""

    exit_code = 3
