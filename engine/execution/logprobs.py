"""Log-probabilities of drawn and of prompt tokens on their way from the device, always from the raw logits."""

from dataclasses import dataclass, replace

import numpy as np

from engine.batch import Float32s, Int32s, LogprobRows, PromptLogprobRows
from engine.kernels.logprobs import TokenLogprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLogprobs:
    rows: Int32s
    tokens: TokenLogprobs

    def to_host(self) -> LogprobRows:
        logprobs, ranks, top_ids, top_logprobs = _host(self.tokens)
        return LogprobRows(rows=self.rows, logprobs=logprobs, ranks=ranks, top_ids=top_ids, top_logprobs=top_logprobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLogprobs:
    chunk: int
    first: int
    tokens: TokenLogprobs

    def sent(self) -> "PromptLogprobs":
        """On its way to pinned memory; to be read when the work of the current stream is done."""
        tokens = self.tokens
        return replace(
            self,
            tokens=TokenLogprobs(
                logprobs=tokens.logprobs.to("cpu", non_blocking=True),
                ranks=tokens.ranks.to("cpu", non_blocking=True),
                top_ids=tokens.top_ids.to("cpu", non_blocking=True),
                top_logprobs=tokens.top_logprobs.to("cpu", non_blocking=True),
            ),
        )

    def to_host(self) -> PromptLogprobRows:
        logprobs, ranks, top_ids, top_logprobs = _host(self.tokens)
        return PromptLogprobRows(
            chunk=self.chunk,
            first=self.first,
            logprobs=logprobs,
            ranks=ranks,
            top_ids=top_ids,
            top_logprobs=top_logprobs,
        )


def _host(tokens: TokenLogprobs) -> tuple[Float32s, Int32s, Int32s, Float32s]:
    return (
        tokens.logprobs.cpu().numpy(),
        tokens.ranks.cpu().numpy().astype(np.int32),
        tokens.top_ids.cpu().numpy().astype(np.int32),
        tokens.top_logprobs.cpu().numpy(),
    )
