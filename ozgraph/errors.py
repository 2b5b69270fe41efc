"""The errors ozgraph raises on purpose: one family, each message saying what, where and what to do next."""


class OzgraphError(Exception):
    """Root of every error that ozgraph raises on purpose."""


class ModelError(OzgraphError):
    """The model cannot be read: not ONNX, truncated, inconsistent, unsafe or beyond what the runtimes run."""


class UsageError(OzgraphError):
    """The request cannot be carried out: an unknown name, an impossible target, an output that is the input."""


class OutOfMemoryError(UsageError):
    """Memory does not suffice to run a model on these inputs, which says nothing of the model or of what was pruned."""


class RuleError(OzgraphError):
    """A rule's notation is malformed, or a rule contradicts the operator it is applied to."""


class PassError(OzgraphError):
    """A pipeline is put together wrongly: a pass runs before what it requires, or breaks what it promised."""


class VerificationError(OzgraphError):
    """The pruned model could not be proved equal to the zeroed original; nothing was written."""
