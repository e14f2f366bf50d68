"""Log-probabilities of a message as objects per token. Knows no row."""

from collections.abc import Sequence

from frontend.request import TokenLogprob
from protocol.codec import float32s, int32s
from protocol.messages import PromptLogprobs, StepLogprobs


def by_token(logprobs: StepLogprobs, tokens: "memoryview[int]") -> list[TokenLogprob | None]:
    """One entry for each token of the step; None for those that did not ask."""
    entries: list[TokenLogprob | None] = [None] * len(tokens)
    ids, values = int32s(logprobs.top_ids), float32s(logprobs.top_logprobs)
    start = 0
    fields = zip(
        int32s(logprobs.index),
        float32s(logprobs.logprobs),
        int32s(logprobs.ranks),
        int32s(logprobs.widths),
        strict=True,
    )
    for index, logprob, rank, width in fields:
        end = start + width
        top = list(zip(ids[start:end], values[start:end], strict=True))
        entries[index] = TokenLogprob(token_id=tokens[index], logprob=logprob, rank=rank, top=top)
        start = end
    return entries


def by_position(message: PromptLogprobs, tokens: Sequence[int]) -> list[TokenLogprob]:
    """One entry for each prompt token of the chunk. Raises ValueError where `tokens` are more or fewer."""
    ids, values = int32s(message.top_ids), float32s(message.top_logprobs)
    width = message.width
    entries = []
    fields = zip(tokens, float32s(message.logprobs), int32s(message.ranks), strict=True)
    for i, (token, logprob, rank) in enumerate(fields):
        its = slice(i * width, (i + 1) * width)
        top = list(zip(ids[its], values[its], strict=True))
        entries.append(TokenLogprob(token_id=token, logprob=logprob, rank=rank, top=top))
    return entries
