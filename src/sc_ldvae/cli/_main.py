"""A command from its words to its exit code."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sc_ldvae.cli._wording import in_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae.likelihoods import GeneLikelihood

logger = logging.getLogger("sc_ldvae")

_CAN_NOT, _INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it worked, 2 if what it was given can't be used, 130 if it was interrupted."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    asked: dict[str, Any] = {}
    try:
        # They take half a second already, in which one can change one's mind.
        from sc_ldvae.cli._at_once import check_at_once
        from sc_ldvae.cli._fit import fit
        from sc_ldvae.cli._parser import parser

        asked |= vars(parser().parse_args(arguments))
        if asked["command"] == "compile":
            _compile(asked["gene_likelihood"])
        else:
            check_at_once(asked)
            fit(asked)
    except KeyboardInterrupt:
        logger.error("sc_ldvae: Interrupted.")  # noqa: TRY400  it was the user, who needs no traceback
        return _INTERRUPTED
    except (ValueError, TypeError, ArithmeticError, OSError, ImportError, MemoryError) as error:
        sentence = in_options(str(error), asked) or f"{type(error).__name__}."
        logger.error("sc_ldvae: %s", sentence)  # noqa: TRY400  users get the sentence, not the traceback
        return _CAN_NOT
    return 0


def _compile(gene_likelihood: GeneLikelihood | None) -> None:
    from sc_ldvae import tl

    # What fits of made-up counts come to is nobody's concern.
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        tl.compile_kernels(gene_likelihood=gene_likelihood)
    finally:
        logger.setLevel(level)
